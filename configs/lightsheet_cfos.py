r"""c-Fos+ nuclei in light-sheet volumes, 1 labelled volume: 969 with y < 120.

    python -m cellcount_jax.main --config=configs/lightsheet_cfos.py \
        --config.data.dir=../shared/data/lightsheet_cfos

Two test sets: 'test', other brains (695 and 753), and 'held_out', the same brain (969 with
y >= 136). Sized for 2 cores, at 8 um, threshold from the training volume (3 seeds): same brain
F1 0.775 +- 0.014; across brains F1 0.528 +- 0.018, MAE 387, too many cells in 753; 5.3 minutes on
one core. `:focal`, with the focal consistency loss on unlabelled volumes, is not the default: on a
part of the training volume that was not trained on it has 0.785 to 0.794 without. It has F1
0.761 +- 0.008 and 0.520 +- 0.057 in 6.1 minutes. A difference of Gaussians has 0.783 and 0.449.
Transfer between brains is not solved here: see RESULTS.md.

These figures are with `--config.data.calibration_share=0`; not run with a fifth of the labels left
out for the threshold, the default now.

`:paper` is the full recipe (32 root features, 1 + 4 crops of 56 x 200 x 200, 12,750 steps) for
an accelerator: not run.
"""

import ml_collections

from cellcount_jax import config as settings
from cellcount_jax import variants


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """The settings; `variant` is one of `variants.VARIANTS`."""
    config = settings.default_config()
    config.name = "lightsheet_cfos"
    config.data.kind = "volumes"
    config.data.train_names = ("969",)
    config.data.region = "y<120"
    config.data.held_out_region = "y>=136"
    # 695u and 753u are of the brains that are tested.
    config.data.unlabelled_names = ("969u", "1230u")
    config.evaluation.max_distance = 8.0
    variants.use_volumes(config)
    variants.use_supervised(config)
    variants.use_variant(config, variant, variants.VARIANTS)
    return config
