"""Which cells `few_labels.py` has: data set, method, number of labels, draw, seed and part.

A method is a line of `METHODS`, and is run on all of `SOURCES`. It writes down every setting of
the consistency loss that makes it what it is; what it leaves out is that of the config.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ablation_cells import Method

SEEDS = 3
ALL = -1  # labelled images, as in config.data.num_labelled
PARTS = ("test", "develop")  # what cells are scored on
REFERENCE = "supervised"
# Whose cells with all labels there are: the upper end of what unlabelled images can give.
UPPER = ("supervised",)
IMAGES = "images"  # folder of the prepared ones, beside the workdirs
RULES = ("peaks", "components")


def _consistent(title: str, **changed: Any) -> Method:
    """The paper's loss, with other settings of config.consistency.

    In names `__` stands for the dot of a key of another section.
    """
    paper = {"weight": 1.0, "perturbation": "feature_noise_last", "focal": True}
    named = {
        key.replace("__", ".") if "__" in key else f"consistency.{key}": value
        for key, value in {**paper, **changed}.items()
    }
    return Method(title, overrides={"target.kernel": "inverse_distance", **named})


def _everywhere(title: str, **changed: Any) -> Method:
    """Consistency of what the image alone changes, in all voxels and not around cells only."""
    return _consistent(title, **{"perturbation": "none", "focal": False, **changed})


_MEAN_TEACHER: dict[str, Any] = {"teacher": "average", "teacher_flips": True}

METHODS: dict[str, Method] = {
    REFERENCE: Method(
        "labelled images alone",
        overrides={"target.kernel": "inverse_distance", "consistency.weight": 0.0},
    ),
    "symmetric": Method(
        "labelled images alone, symmetric kernels",
        overrides={
            "target.kernel": "inverse_distance",
            "consistency.weight": 0.0,
            "model.symmetry": "square",
        },
    ),
    "branch": Method(
        "labelled images alone, counter on a branch",
        overrides={
            "target.kernel": "inverse_distance",
            "consistency.weight": 0.0,
            "model.counter": "branch",
        },
    ),
    "paper": _consistent("the paper's focal consistency"),
    "symmetric_paper": _consistent(
        "the paper's focal consistency, symmetric kernels", model__symmetry="square"
    ),
    "noise_all": _consistent("noise at all levels", perturbation="feature_noise_all"),
    "begin": _consistent("labelled images alone first", begin=0.4),
    "average": _consistent("teacher: moving average", teacher="average"),
    "flips": _consistent("teacher: mean over mirror images", teacher_flips=True),
    "balance": _consistent("kinds equally often", balance=True),
    "view": _everywhere("changed view", view=1.0),
    "mean_teacher": _everywhere("moving average of mirror images", **_MEAN_TEACHER),
    "mean_teacher_view": _everywhere(
        "moving average of mirror images, changed view", **_MEAN_TEACHER, view=1.0
    ),
    "mean_teacher_scale": _everywhere(
        "moving average of mirror images, changed view, size and cut-out",
        **_MEAN_TEACHER,
        view=1.0,
        scale=0.3,
        cut_out=0.3,
    ),
    "mean_teacher_joint": _everywhere(
        "moving average of mirror images, joint statistics of the norms",
        **_MEAN_TEACHER,
        norms="joint",
    ),
    "view_joint": _everywhere(
        "moving average, changed view, joint statistics",
        teacher="average",
        view=1.0,
        norms="joint",
    ),
    "dots_joint": _everywhere(
        "sure cells as dots, moving average, changed view, joint statistics",
        teacher="average",
        view=1.0,
        target="dots",
        norms="joint",
        begin=0.4,
    ),
    "dots": _everywhere(
        "sure cells as dots, moving average, changed view",
        teacher="average",
        view=1.0,
        target="dots",
        begin=0.5,
        weight=0.3,
    ),
    "dots_all": _everywhere(
        "sure cells as dots, mirror images, view, size, kinds equally often",
        **_MEAN_TEACHER,
        view=1.0,
        scale=0.3,
        target="dots",
        balance=True,
        begin=0.5,
        weight=0.3,
    ),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set.

    Attributes:
      title: in the tables.
      config: its file.
      folder: of the images, in the folder of data.
      overrides: settings of all its cells, key -> value.
      labelled: the numbers of labelled images.
      draws: how many choices of these images there are.
      prepared: whether the folder is made for each part, number and draw; else for `develop` alone.
      developed: settings of the cells that are scored on `develop`.
    """

    title: str
    config: str
    folder: str
    overrides: Mapping[str, Any]
    labelled: tuple[int, ...]
    draws: int = 1
    prepared: bool = False
    developed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


_FEW = {"data.calibration_share": 0.0}  # all labels are learned from, and choose the threshold
_NUCLEI = {
    **_FEW,
    "train.steps": 1000,
    "evaluation.max_distance": 8.0,
}
_NUMBERS = (5, 10, 20, 50, ALL)

SOURCES: dict[str, Source] = {
    "nuclei2d": Source(
        "nuclei2d",
        "configs/folder.py",
        "nuclei2d",
        {
            **_NUCLEI,
            "data.normalisation": "robust_log",
            "augment.gain": 0.5,
            "augment.offset": 0.3,
            "augment.noise": 0.2,
        },
        _NUMBERS,
        draws=3,
        prepared=True,
    ),
    # Cells of one size. The smallest images are 101 pixels wide then: smaller crops.
    "nuclei2d_sized": Source(
        "nuclei2d, resampled to one size",
        "configs/folder.py",
        "nuclei2d",
        {
            **_NUCLEI,
            "data.diameter": 16.0,
            "data.from_diameter": -1.0,
            "data.normalisation": "levels",
            "predict.estimate_diameter": True,
            "augment.gain": 0.4,
            "augment.offset": 0.15,
            "augment.noise": 0.2,
            "augment.gamma": 0.4,
            "augment.blur": 1.2,
            "augment.gradient": 0.3,
            "train.crop": (96, 96),
        },
        _NUMBERS,
        draws=3,
        prepared=True,
    ),
    "microglia": Source(
        "microglia",
        "configs/lightsheet_microglia.py",
        "lightsheet_microglia",
        _FEW,
        (1,),
    ),
    # Half of the config's steps, as in the ablation.
    "vgg": Source(
        "VGG",
        "configs/vgg.py",
        "vgg",
        {**_FEW, "train.steps": 1000},
        (8,),
        developed={"data.kind": "folder"},
    ),
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run."""

    dataset: str
    method: str
    labelled: int
    draw: int
    seed: int
    part: str = "test"

    @property
    def number(self) -> str:
        """Of the labelled images, as text."""
        return "all" if self.labelled == ALL else str(self.labelled)

    @property
    def name(self) -> str:
        """Of its result and its workdir."""
        ending = "" if self.part == "test" else f"_{self.part}"
        return f"{self.dataset}_{self.method}_{self.number}_{self.draw}_{self.seed}{ending}"

    @property
    def images(self) -> str:
        """The name of the folder that is prepared for it; '' if the data set is read as it is."""
        source = SOURCES[self.dataset]
        if source.prepared:
            return f"{source.folder}_{self.part}_{self.number}_{self.draw}"
        return "" if self.part == "test" else f"{source.folder}_{self.part}"

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings that differ from the config file's, key -> value."""
        source = SOURCES[self.dataset]
        return {
            "data.num_labelled": self.labelled,
            **source.overrides,
            **(source.developed if self.part == "develop" else {}),
            **METHODS[self.method].overrides,
            "seed": self.seed,
        }

    def arguments(self, data: Path, workdir: Path) -> list[str]:
        """What follows `python`, from the repository's root."""
        source = SOURCES[self.dataset]
        folder = workdir.parent / IMAGES / self.images if self.images else data / source.folder
        return [
            *("-m", "cellcount_jax.main", f"--config={source.config}"),
            f"--config.data.dir={folder}",
            *(f"--config.{key}={value}" for key, value in self.overrides.items()),
            f"--workdir={workdir}",
        ]


def cells(_: Mapping[str, Mapping[str, Any]] | None = None, *, part: str) -> Iterator[Cell]:
    """All cells that are scored on a part, in the order in which they are to run.

    First each draw with another seed, then each with the next one: the spread of both is known
    early.
    """
    for turn in range(max(source.draws for source in SOURCES.values())):
        for seed in range(SEEDS):
            for dataset, source in SOURCES.items():
                for labelled in source.labelled:
                    draws = 1 if labelled == ALL else source.draws
                    if turn < draws:
                        for method in UPPER if labelled == ALL else METHODS:
                            draw = (seed + turn) % draws
                            yield Cell(dataset, method, labelled, draw, seed, part)


def best_rule(result: Mapping[str, Any]) -> str:
    """The detection rule with the higher F1 on the training images; peaks where equal."""
    reached = result["f1_on_training_images"]
    return max(RULES, key=lambda rule: reached.get(rule) or 0.0)
