"""The bundled model `nuclei_he`: nuclei in images of haematoxylin and eosin, dark on bright, RGB.

    bash launch/models.sh nuclei_he

makes its images (`launch/model_images.py`), trains, calibrates and scores it, and writes
`cellcount_jax/models/nuclei_he.zip`. Nuclei are 12 to 60 pixels wide there; the training changes
their size at random, as it can be measured in such images within a factor of 1.5 alone.
"""

import ml_collections

from cellcount_jax import variants


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings."""
    config = variants.folder_config()
    config.name = "nuclei_he"
    config.data.dir = "data/nuclei_he"
    config.data.diameter = 20.0
    config.data.normalisation = "standardise"
    variants.use_radius(config, 8.0, (1.0, 1.0))
    config.data.calibration_share = 0.1
    config.detect.min_distance = (5, 5)
    config.predict.flips = True
    config.consistency.weight = 0.0
    config.augment.scale = 0.35
    config.augment.gain = 0.3
    config.augment.offset = 0.4
    config.augment.noise = 0.1
    config.augment.gamma = 0.2
    config.augment.blur = 1.0
    config.train.crop = (128, 128)
    config.train.batch_labelled = 6
    config.train.steps = 7000
    config.train.scan_length = 20
    config.train.checkpoint_every = 500
    config.evaluation.overlays = 20
    variants.use_variant(config, variant, {})
    return config
