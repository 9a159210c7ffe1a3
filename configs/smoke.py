"""smoke"""

from cellcount_jax.config import default_config


def get_config():
    config = default_config()
    config.name = "smoke"
    config.data.kind = "synthetic"
    config.model.features = 4
    config.train.steps = 60
    config.train.checkpoint_every=20
    config.train.crop = (64, 64)
    config.optim.learning_rate = 3e-3
    return config
