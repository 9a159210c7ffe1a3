"""MBM bone marrow (H&E, 600 x 600), 15 labelled images; no unlabelled ones.

    python -m cellcount_jax.main --config=configs/mbm.py --config.data.dir=../shared/data/mbm

Sized for 2 cores, at 8 px, threshold from the training images (seed 0, one run): test F1 0.822, MAE
24; 7.1 minutes on one core beside other work. `:supervised`, without the consistency loss, is the
better one, also on the training images (F1 0.891 to 0.839): test F1 0.884, MAE 14.5 in 3.6 minutes.
The consistency loss sees the labelled images without their dots.

`:paper` is the full recipe (32 root features, 8 + 80 crops of 224, 12,750 steps) for an
accelerator: not run.
"""

import ml_collections

from cellcount_jax import config as settings


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` is one of `config.VARIANTS`."""
    config = settings.default_config()
    config.name = "mbm"
    config.data.kind = "mbm"
    config.evaluation.max_distance = 8.0
    config.detect.min_distance = (2, 2)
    settings.use_variant(config, variant, settings.VARIANTS)
    return config
