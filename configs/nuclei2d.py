"""The bundled model `nuclei2d`: round cells and nuclei of any size in 2D fluorescence images.

    bash launch/models.sh nuclei2d

makes its images (`launch/model_images.py`), trains, calibrates and scores it, and writes
`cellcount_jax/models/nuclei2d.zip`. All images have cells of about 16 pixels there; the model
measures the size of the cells in an image that it is to count, and resamples it.
"""

import ml_collections

from cellcount_jax import variants


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings."""
    config = variants.folder_config()
    config.name = "nuclei2d"
    config.data.dir = "data/nuclei2d"
    config.data.diameter = 16.0
    config.data.normalisation = "levels"
    variants.use_radius(config, 8.0, (1.0, 1.0))
    config.predict.estimate_diameter = True
    config.detect.min_distance = (3, 3)
    config.predict.flips = True
    config.data.calibration_share = 0.05
    config.consistency.weight = 0.0
    config.augment.scale = 0.35
    config.augment.gain = 0.4
    config.augment.offset = 0.15
    config.augment.noise = 0.2
    config.augment.gamma = 0.4
    config.augment.blur = 1.2
    config.augment.gradient = 0.3
    config.model.features = 24
    config.train.crop = (96, 96)
    config.train.batch_labelled = 8
    config.train.steps = 12_000
    config.train.scan_length = 20
    config.train.checkpoint_every = 500
    config.evaluation.overlays = 20
    variants.use_variant(config, variant, {})
    return config
