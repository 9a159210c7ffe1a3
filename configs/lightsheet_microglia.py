"""lightsheet_microglia DOC"""

import ml_collections

from cellcount_jax import config as settings


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `:paper` is the paper's full recipe for an accelerator."""
    config = settings.default_config()
    config.name = "lightsheet_microglia"
    config.data.kind = "volumes"
    config.data.train_names = ("1874",)
    config.evaluation.max_distance = 12.0
    settings.use_volumes(config)
    settings.use_variant(config, variant, {"paper": settings.use_paper_recipe})
    return config
