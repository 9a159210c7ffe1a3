"""Microglia somata in light-sheet volumes, 1 labelled volume."""

import ml_collections

from cellcount_jax import config as settings


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `:paper` for an accelerator."""
    config = settings.default_config()
    config.name = "lightsheet_microglia"
    config.data.kind = "volumes"
    config.data.ndim = 3
    config.data.train_names = ("1874",)
    config.data.normalisation = "robust_log"
    config.augment.gain = 0.3
    config.augment.offset = 0.5
    config.detect.min_distance = (1, 2, 2)
    config.evaluation.max_distance = 12.0
    config.model.strides = ((1, 2, 2), (2, 2, 2), (2, 2, 2))
    config.train.crop = (32, 64, 64)
    config.train.batch_labelled = 2
    config.train.batch_unlabelled = 1
    config.train.steps = 300
    config.optim.learning_rate = 3e-3
    if settings.variant_of(config, variant):
        settings.use_paper_recipe(config)
        config.train.crop = (56, 200, 200)
        config.train.batch_labelled = 1
        config.train.batch_unlabelled = 4
    return config
