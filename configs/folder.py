"""folder DOC"""

import ml_collections

from cellcount_jax import config as settings


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings for images; `:3d` for volumes, `:paper` for images on an accelerator."""
    config = settings.default_config()
    config.name = "folder"
    config.data.kind = "folder"
    config.data.normalisation = "robust_log"
    known = {"paper": settings.use_paper_recipe, "3d": settings.use_volumes}
    settings.use_variant(config, variant, known)
    return config
