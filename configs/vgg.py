"""vgg DOC"""

import ml_collections

from cellcount_jax import config as settings


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `:paper` is the paper's full recipe for an accelerator."""
    config = settings.default_config()
    config.name = "vgg"
    config.data.kind = "vgg"
    config.data.num_labelled = 8
    config.train.batch_labelled = 8
    settings.use_variant(config, variant, {"paper": settings.use_paper_recipe})
    return config
