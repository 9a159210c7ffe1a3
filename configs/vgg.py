"""VGG cells, 8 labelled images, sized for 2 cores.

python -m cellcount_jax.main --config=configs/vgg.py --config.data.dir=../shared/data/vgg
"""

from cellcount_jax.config import default_config


def get_config(variant="cpu"):
    config = default_config()
    config.name = "vgg"
    config.data.num_labelled = 8
    config.optim.learning_rate = 3e-3
    return config
