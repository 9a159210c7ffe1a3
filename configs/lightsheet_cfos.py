"""lightsheet_cfos DOC"""

import ml_collections

from cellcount_jax import config as settings


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `:paper` is the paper's full recipe for an accelerator."""
    config = settings.default_config()
    config.name = "lightsheet_cfos"
    config.data.kind = "volumes"
    config.data.train_names = ("969",)
    config.data.region = "y<120"
    config.data.held_out_region = "y>=136"
    # 695u and 753u are of the brains that are tested.
    config.data.unlabelled_names = ("969u", "1230u")
    config.evaluation.max_distance = 8.0
    settings.use_volumes(config)
    settings.use_variant(config, variant, {"paper": settings.use_paper_recipe})
    return config
