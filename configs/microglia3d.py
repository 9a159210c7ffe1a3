"""The bundled model `microglia3d`: microglia somata in light-sheet volumes of cleared brain.

    bash launch/models.sh microglia3d

puts its volumes in one folder (`launch/model_images.py`), trains, calibrates and scores it, and
writes `cellcount_jax/models/microglia3d.zip`. As configs/lightsheet_microglia.py, on five labelled
volumes, dense and sparse ones, and those without labels.
"""

import ml_collections

from cellcount_jax import variants


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings."""
    config = variants.folder_config(ndim=3)
    config.name = "microglia3d"
    config.data.dir = "data/microglia3d"
    config.data.test_fraction = 0.0
    config.evaluation.max_distance = 12.0
    config.train.steps = 1200
    variants.use_variant(config, variant, {})
    return config
