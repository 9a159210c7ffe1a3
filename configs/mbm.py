"""mbm DOC"""

import ml_collections

from cellcount_jax import config as settings


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `:paper` is the paper's full recipe for an accelerator."""
    config = settings.default_config()
    config.name = "mbm"
    config.data.kind = "mbm"
    config.evaluation.max_distance = 8.0
    config.detect.min_distance = (2, 2)
    settings.use_variant(config, variant, {"paper": settings.use_paper_recipe})
    return config
