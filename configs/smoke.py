"""Smoke test: a tiny network on the synthetic set, to see that all parts work.

    python -m cellcount_jax.main --config=configs/smoke.py

Test F1 0.92 in 34 seconds on 2 CPU cores, most of it compiling.
"""

import ml_collections

from cellcount_jax import config as settings
from cellcount_jax import variants


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings."""
    config = settings.default_config()
    config.name = "smoke"
    config.data.kind = "synthetic"
    config.data.num_labelled = 4
    config.data.num_unlabelled = 4
    config.model.features = 4
    config.optim.learning_rate = 1e-2
    config.train.steps = 100
    config.train.checkpoint_every = 50
    config.train.crop = (64, 64)
    config.evaluation.overlays = 2
    variants.use_variant(config, variant, {})
    return config
