"""What `peers.py` compares: programs with their versions and settings, volumes, and its cells."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SPOTIFLOW_MODEL = "{trained}"  # stands for the folder of the network that was trained here
# Of scores: above them is all of which a threshold is chosen. Ours takes none below.
LOW = 0.05
LOW_SPOTIFLOW = 0.02

Settings = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Volumes of one kind.

    Attributes:
      title: in the tables.
      folder: in the folder of data.
      spacing: z, y, x in um.
      max_distance: of a true detection, in um.
      train: volumes that settings are chosen on, and the y that count there (all: '').
      tests: name of a test set -> its volumes, likewise.
      held_back: axis and index where the part begins that Spotiflow validates its network on.
      speed: the volume that is repeated for the speed, how often along each axis.
    """

    title: str
    folder: str
    spacing: tuple[float, float, float]
    max_distance: float
    train: tuple[tuple[str, str], ...]
    tests: Mapping[str, tuple[tuple[str, str], ...]]
    held_back: tuple[int, int]
    speed: tuple[str, tuple[int, int, int]]


DATASETS = {
    "microglia": Dataset(
        "microglia",
        "lightsheet_microglia",
        (6.0, 3.24, 3.24),
        12.0,
        (("train/1874", ""), ("train/6871", "")),
        {
            "test": (
                *(("test/2248", ""), ("test/2433", "")),
                *(("test/6003", ""), ("test/6742", "")),
            )
        },
        (0, 160),
        ("train/1874", (1, 2, 2)),
    ),
    "cfos": Dataset(
        "c-Fos",
        "lightsheet_cfos",
        (6.0, 1.62, 1.62),
        8.0,
        (("train/969", "0:120"),),
        {
            "test": (("test/695", ""), ("test/753", "")),
            "same_brain": (("train/969", "136:200"),),
        },
        (2, 136),
        ("train/969", (1, 2, 2)),
    ),
}


def _grid(fixed: Settings, **values: tuple[Any, ...]) -> tuple[Settings, ...]:
    """All combinations of some settings, with fixed ones."""
    products = itertools.product(*values.values())
    return tuple({**fixed, **dict(zip(values, chosen, strict=True))} for chosen in products)


@dataclasses.dataclass(frozen=True)
class Method:
    """A program, and how it is to be used.

    Attributes:
      title: in the tables.
      script: in benchmarks/, which runs in the program's environment.
      candidates: data set -> settings, of which the training volumes choose.
      requirements: of its environment; none for ours, which is this one.
      packages: whose versions are reported.
      scored: whether detections have scores, of which a threshold is chosen.
      small: settings that change nothing but the time that a small volume takes.
      choice: what of the data its settings, or its weights, know.
    """

    title: str
    script: str
    candidates: Mapping[str, tuple[Settings, ...]]
    requirements: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("cellcount_jax", "jax", "jaxlib", "numpy")
    scored: bool = False
    small: Settings = dataclasses.field(default_factory=dict)
    choice: str = ""


METHODS = {
    "cellcount": Method(
        "cellcount_jax, as bundled",
        "peer_cellcount.py",
        {"microglia": ({"model": "microglia3d"},), "cfos": ({"model": "nuclei3d"},)},
        choice="microglia3d has learned from five volumes, 1874 and 6871 among them; the threshold"
        " of nuclei3d was chosen on 969, 695 and 753, so that its c-Fos row across brains is no"
        " test.",
    ),
    "cellcount_chosen": Method(
        "cellcount_jax, threshold chosen like the others'",
        "peer_cellcount.py",
        {
            "microglia": ({"model": "microglia3d", "threshold": LOW},),
            "cfos": ({"model": "nuclei3d", "threshold": LOW},),
        },
        scored=True,
        choice="The same networks; their weights have learned from the volumes, or the part of"
        " one, that chose the threshold.",
    ),
    "cellfinder": Method(
        "cellfinder, detection",
        "peer_cellfinder.py",
        {
            "microglia": _grid(
                {"ball_xy_size": 6.0, "ball_z_size": 15.0},
                soma_diameter=(8.0, 12.0, 16.0),
                n_sds_above_mean_thresh=(2.0, 5.0, 10.0),
            ),
            "cfos": _grid(
                {"soma_diameter": 6.0},
                ball_xy_size=(4.0, 6.0),
                ball_z_size=(7.0, 15.0),
                n_sds_above_mean_thresh=(1.0, 2.0, 3.5),
            ),
        },
        ("torch==2.13.0", "cellfinder==1.10.1"),
        ("cellfinder", "torch", "numpy", "numba"),
        # One process for the planes instead of four, each of which imports all at every call.
        small={"batch_size": 1},
        choice="Without its network that classifies the candidates, whose weights are downloaded"
        " and were learned from other cells.",
    ),
    "spotiflow": Method(
        "Spotiflow, in 3D",
        "peer_spotiflow.py",
        {
            name: tuple(
                {"model": model, "prob_thresh": LOW_SPOTIFLOW}
                for model in (SPOTIFLOW_MODEL, "synth_3d", "smfish_3d")
            )
            for name in DATASETS
        },
        # torchvision needs this torch.
        ("torch==2.14.1", "torchvision==0.29.1", "spotiflow==0.6.5"),
        ("spotiflow", "torch", "numpy"),
        scored=True,
        choice="Trained from nothing on the training volumes, with its defaults for volumes (grid"
        " 2, 32 feature maps), a part of them held back for its own validation. Minutes on"
        " two cores are a start: with hours on an accelerator it can be far better.",
    ),
}
OURS = "cellcount"
FAST = {"thorough": False}  # one pass, where a model takes the mean over mirror images by default


@dataclasses.dataclass(frozen=True)
class Score:
    """A cell: a program's settings chosen on training volumes, and its F1 on test volumes."""

    dataset: str
    method: str

    @property
    def name(self) -> str:
        """Of its result."""
        return f"{self.dataset}_{self.method}"


@dataclasses.dataclass(frozen=True)
class Speed:
    """A cell: all programs in turn on one volume, on some cores."""

    dataset: str
    cores: int

    @property
    def name(self) -> str:
        """Of its result."""
        return f"speed_{self.dataset}_{self.cores}"


def cells() -> Iterator[Score | Speed]:
    """All cells in their order: the speed uses the settings that the scores have chosen."""
    for dataset in DATASETS:
        for method in METHODS:
            yield Score(dataset, method)
    for cores in (2, 1):
        for dataset in DATASETS:
            yield Speed(dataset, cores)


def path_of(data: Path, dataset: Dataset, name: str) -> Path:
    """The TIFF file of a volume."""
    return data / dataset.folder / f"{name}.tif"
