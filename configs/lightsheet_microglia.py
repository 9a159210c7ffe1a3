r"""Microglia somata in light-sheet volumes (200 x 100 x 100 voxels), 1 labelled volume, 1874.

    python -m cellcount_jax.main --config=configs/lightsheet_microglia.py \
        --config.data.dir=../shared/data/lightsheet_microglia

Sized for 2 cores: test F1 0.964 +- 0.004 at 12 um, MAE 5.3 over 4 volumes, threshold from the
training volume (3 seeds); 5.8 minutes on one core beside another run, training and evaluation
together. `:supervised` has 0.964 +- 0.0001 and 7.1 in 5.0 minutes, a difference of Gaussians 0.964
and 8.2; see RESULTS.md. The eight volumes of unlabeled/ and the other one of train/ are used
without dots.

`:paper` is the full recipe (32 root features, 1 + 4 crops of 56 x 96 x 96, 12,750 steps) for an
accelerator: not run.
"""

import ml_collections

from cellcount_jax import config as settings
from cellcount_jax import variants


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` is one of `variants.VARIANTS`."""
    config = settings.default_config()
    config.name = "lightsheet_microglia"
    config.data.kind = "volumes"
    config.data.train_names = ("1874",)
    config.evaluation.max_distance = 12.0
    variants.use_volumes(config)
    variants.use_variant(config, variant, variants.VARIANTS)
    if variant == "paper":
        config.train.crop = (56, 96, 96)  # the volumes are 100 wide
    return config
