"""A folder of one's own."""

import ml_collections

from cellcount_jax import config as settings


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `:paper` for an accelerator, `:3d` for volumes."""
    config = settings.default_config()
    config.name = "folder"
    config.data.kind = "folder"
    config.data.normalisation = "robust_log"
    config.optim.learning_rate = 3e-3
    return config
