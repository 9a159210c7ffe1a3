"""Which cells the ablation has: data set, method, labelled images and seed, most telling first.

A row of `ROWS` is a row of a table; one line adds one. A method writes down every setting that
makes it what it is, so that it stays the same method when a default changes. What it leaves out
(network, steps, weight on the dots, detection) is that of the config, the same for all methods.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

BASELINE = "difference_of_gaussians"
SEEDS = 3


@dataclasses.dataclass(frozen=True)
class Method:
    """A row's settings.

    Attributes:
      title: in the tables.
      variant: of the config file, behind the colon.
      overrides: key -> value, without 'config.'.
      script: what runs it instead of the training.
    """

    title: str
    variant: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    script: str = ""


def _supervised(title: str, variant: str, kernel: str, **further: Any) -> Method:
    """Without unlabelled images. In `further`, `__` stands for the dot of a key."""
    return Method(title, variant, {**_settings(kernel, further), "consistency.weight": 0.0})


def _consistent(title: str, perturbation: str, *, focal: bool = True, **further: Any) -> Method:
    """The inverse distance kernel with a consistency loss; `further` as in `_supervised`."""
    overrides = {
        **_settings("inverse_distance", further),
        "consistency.weight": 1.0,
        "consistency.focal": focal,
        "consistency.perturbation": perturbation,
    }
    return Method(title, overrides=overrides)


def _transfer(title: str, **further: Any) -> Method:
    """The inverse distance kernel alone, with something else about intensities."""
    return _supervised(f"Inverse distance, {title}", "supervised", "inverse_distance", **further)


def _settings(kernel: str, further: Mapping[str, Any]) -> dict[str, Any]:
    named = {key.replace("__", "."): value for key, value in further.items()}
    return {"target.kernel": kernel, "target.count_head": False, **named}


_LAST = "feature_noise_last"

METHODS: dict[str, Method] = {
    BASELINE: Method("Difference of Gaussians", script=f"benchmarks/{BASELINE}.py"),
    "gaussian": _supervised("Gaussian kernel, sigma 1", "gaussian", "gaussian", target__sigma=1.0),
    "gaussian_sigma2": _supervised(
        "Gaussian kernel, sigma 2", "gaussian", "gaussian", target__sigma=2.0
    ),
    "full_annotation": _supervised(
        "Full annotation", "full_annotation", "mask", detect__rule="components"
    ),
    "inverse_distance": _supervised("Inverse distance kernel", "supervised", "inverse_distance"),
    "consistency": _consistent("+ consistency without focus", _LAST, focal=False),
    "focal_last": _consistent("+ focal consistency, feature noise, last level", _LAST),
    "focal_all": _consistent("+ focal consistency, feature noise, all levels", "feature_noise_all"),
    "focal_noise": _consistent("+ focal consistency, image noise", "noise"),
    "focal_contrast": _consistent("+ focal consistency, contrast", "contrast"),
    "focal_brightness": _consistent("+ focal consistency, brightness", "brightness"),
    "focal_sharpness": _consistent("+ focal consistency, sharpness", "sharpness"),
    "count_head": _consistent("+ focal consistency + count head", _LAST, target__count_head=True),
    "count_head_long": _consistent(
        "+ focal consistency + count head, 2000 steps (the config's default)",
        _LAST,
        target__count_head=True,
        train__steps=2000,
    ),
    # Transfer between volumes: each differs from `inverse_distance` in one thing.
    "robust_log": _transfer("normalised by robust_log", data__normalisation="robust_log"),
    "standardise": _transfer("normalised by standardise", data__normalisation="standardise"),
    "signal_to_noise": _transfer(
        "normalised by signal_to_noise",
        data__normalisation="signal_to_noise",
        data__background=60.0,
    ),
    "no_intensity": _transfer("no random gain and offset", augment__gain=0.0, augment__offset=0.0),
    "instance_norm": _transfer("instance norm", model__norm="instance"),
    "cut_cells": _transfer("cells that a crop cuts are learned too", train__cut_margin=0.0),
}

# Data set -> config file, folder of the images, and settings of all its rows.
DATASETS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # Half of the config's steps: VGG has 46 cells.
    "vgg": ("configs/vgg.py", "vgg", {"train.steps": 1000}),
    "mbm": ("configs/mbm.py", "mbm", {}),
    "cfos": ("configs/lightsheet_cfos.py", "lightsheet_cfos", {}),
    "microglia": ("configs/lightsheet_microglia.py", "lightsheet_microglia", {}),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A method on a data set with so many labelled images, and with how many seeds it is run."""

    dataset: str
    method: str
    labelled: int
    seeds: int = SEEDS


# In the order in which they are run, seed by seed.
ROWS: tuple[Row, ...] = (
    Row("vgg", BASELINE, 8, seeds=1),
    Row("cfos", BASELINE, 1, seeds=1),
    Row("microglia", BASELINE, 1, seeds=1),
    Row("mbm", BASELINE, 15, seeds=1),
    Row("vgg", "inverse_distance", 8),
    Row("vgg", "focal_last", 8),
    Row("cfos", "inverse_distance", 1),
    Row("cfos", "focal_last", 1),
    Row("microglia", "inverse_distance", 1),
    Row("microglia", "focal_last", 1),
    Row("vgg", "gaussian", 8),
    Row("vgg", "gaussian_sigma2", 8),
    Row("cfos", "gaussian", 1),
    Row("cfos", "gaussian_sigma2", 1),
    Row("microglia", "gaussian", 1),
    Row("microglia", "gaussian_sigma2", 1),
    Row("cfos", "full_annotation", 1),
    Row("microglia", "full_annotation", 1),
    Row("vgg", "consistency", 8),
    Row("vgg", "count_head", 8),
    Row("vgg", "count_head_long", 8),
    Row("vgg", "focal_all", 8),
    Row("mbm", "inverse_distance", 15, seeds=2),
    Row("mbm", "focal_last", 15, seeds=2),
    *(
        Row("vgg", method, labelled, seeds=2)
        for labelled in (1, 2, 4, 32)
        for method in ("inverse_distance", "focal_last")
    ),
    Row("vgg", "focal_noise", 8),
    Row("vgg", "focal_contrast", 8),
    Row("vgg", "focal_brightness", 8),
    Row("vgg", "focal_sharpness", 8),
    *(
        Row(dataset, method, 1, seeds=1)
        for method in (
            *("signal_to_noise", "cut_cells", "robust_log", "standardise"),
            *("no_intensity", "instance_norm"),
        )
        for dataset in ("cfos", "microglia")
    ),
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run."""

    dataset: str
    method: str
    labelled: int
    seed: int

    @property
    def name(self) -> str:
        """Of its result and its workdir."""
        return f"{self.dataset}_{self.method}_{self.labelled}_{self.seed}"

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings that differ from the config file's, key -> value."""
        shared, method = DATASETS[self.dataset][2], METHODS[self.method].overrides
        return {"data.num_labelled": self.labelled, **shared, **method, "seed": self.seed}

    def arguments(self, data: Path, workdir: Path) -> list[str]:
        """What follows `python`, from the repository's root."""
        method = METHODS[self.method]
        config, folder, _ = DATASETS[self.dataset]
        return [
            *([method.script] if method.script else ["-m", "cellcount_jax.main"]),
            f"--config={config}" + (f":{method.variant}" if method.variant else ""),
            f"--config.data.dir={data / folder}",
            *(f"--config.{key}={value}" for key, value in self.overrides.items()),
            f"--workdir={workdir}",
        ]


def cells(results: Mapping[str, Mapping[str, Any]]) -> Iterator[Cell]:
    """All cells, in the order in which they are to run.

    Args:
      results: name -> result of the cells that are done. With seed 0 both sigmas of the Gaussian
        kernel are run; they decide which one the other seeds are run with.
    """
    for seed in range(max(row.seeds for row in ROWS)):
        for row in ROWS:
            if seed >= row.seeds:
                continue
            cell = Cell(row.dataset, row.method, row.labelled, seed)
            both = seed == 0 or row.method not in ("gaussian", "gaussian_sigma2")
            if both or row.method == chosen_gaussian(results, row.dataset, row.labelled):
                yield cell


def chosen_gaussian(results: Mapping[str, Mapping[str, Any]], dataset: str, labelled: int) -> str:
    """The method of the higher F1 on the training images with seed 0; sigma 1 where equal."""
    reached = []
    for method in ("gaussian", "gaussian_sigma2"):
        result = results.get(Cell(dataset, method, labelled, 0).name)
        reached.append(-1.0 if result is None else training_f1(result))
    return "gaussian_sigma2" if reached[1] > reached[0] >= 0 else "gaussian"


def training_f1(result: Mapping[str, Any]) -> float:
    """A result's F1 on the training images by the run's rule; 0 where it is not known."""
    return float(result["f1_on_training_images"].get(result["rule"]) or 0.0)


def load_results(folder: Path) -> dict[str, dict[str, Any]]:
    """The results of all cells that are done, by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
