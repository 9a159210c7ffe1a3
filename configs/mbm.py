"""MBM bone marrow."""

import ml_collections

from cellcount_jax import config as settings


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `:paper` for an accelerator."""
    config = settings.default_config()
    config.name = "mbm"
    config.data.kind = "mbm"
    config.evaluation.max_distance = 8.0
    config.detect.min_distance = (2, 2)
    config.optim.learning_rate = 3e-3
    if settings.variant_of(config, variant):
        settings.use_paper_recipe(config)
        config.train.crop = (224, 224)
        config.train.batch_labelled = 8
        config.train.batch_unlabelled = 80
    return config
