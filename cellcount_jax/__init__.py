"""Cell counting with the inverse distance kernel and self-supervised learning, in JAX.

Guo et al., "Cell counting with inverse distance kernel and self-supervised learning", 2022:
from a few dots on images to cell locations and counts, in 2D and 3D. The functions here are
the public ones; each is pure unless it names a file.
"""

from cellcount_jax.errors import InputError
from cellcount_jax.evaluation.metrics import f1_score, match_points, mean_absolute_error
from cellcount_jax.inference.doubts import DoubtfulCountWarning
from cellcount_jax.inference.model_file import bundled_models, export_model, load_model
from cellcount_jax.inference.trained_model import TrainedModel, count, predict
from cellcount_jax.maps.detect import find_components, find_peaks
from cellcount_jax.maps.targets import (
    distance_transform,
    gaussian_density_map,
    inverse_distance_map,
)
from cellcount_jax.network.attention import SelfAttention
from cellcount_jax.network.sau_net import Decoder, Encoder, SAUNet
from cellcount_jax.training.losses import (
    density_loss,
    focal_consistency_loss,
    focal_weight,
    ramp_up,
)
from cellcount_jax.training.step import create_train_state, train_step
from cellcount_jax.training.train import train_and_evaluate

__all__ = [
    "Decoder",
    "DoubtfulCountWarning",
    "Encoder",
    "InputError",
    "SAUNet",
    "SelfAttention",
    "TrainedModel",
    "bundled_models",
    "count",
    "create_train_state",
    "density_loss",
    "distance_transform",
    "export_model",
    "f1_score",
    "find_components",
    "find_peaks",
    "focal_consistency_loss",
    "focal_weight",
    "gaussian_density_map",
    "inverse_distance_map",
    "load_model",
    "match_points",
    "mean_absolute_error",
    "predict",
    "ramp_up",
    "train_and_evaluate",
    "train_step",
]
