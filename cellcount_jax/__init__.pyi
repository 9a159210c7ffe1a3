"""The public names and where they are; `__init__.py` imports each when it is first used."""

from .counting.counted import Counted, Counts
from .counting.from_python import count_files
from .errors import InputError
from .evaluation.metrics import f1_score, match_points, mean_absolute_error
from .images.cell_table import Cells
from .inference.doubts import DoubtfulCountWarning
from .inference.model_file import bundled_models, export_model, load_model
from .inference.shortcuts import count, predict
from .inference.trained_model import TrainedModel
from .maps.detect import find_components, find_peaks
from .maps.targets import distance_transform, gaussian_density_map, inverse_distance_map
from .network.attention import SelfAttention
from .network.sau_net import SAUNet
from .network.unet import Decoder, Encoder
from .training.losses import density_loss, focal_consistency_loss, focal_weight, ramp_up
from .training.step import create_train_state, train_step
from .training.train import train_and_evaluate

__all__ = [
    "Cells",
    "Counted",
    "Counts",
    "Decoder",
    "DoubtfulCountWarning",
    "Encoder",
    "InputError",
    "SAUNet",
    "SelfAttention",
    "TrainedModel",
    "bundled_models",
    "count",
    "count_files",
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
