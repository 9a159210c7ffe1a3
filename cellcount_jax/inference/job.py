"""An image in which a model is to find the cells, and what its tasks are run and shown with."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ml_collections
import numpy as np

from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.regions import Readable, Region
from cellcount_jax.inference import survey
from cellcount_jax.inference.job_arrays import open_array
from cellcount_jax.inference.plan import Plan, make_plan
from cellcount_jax.inference.survey import Mask, Survey


class Maps(NamedTuple):
    """The network's maps of an image.

    Attributes:
      location: `(*spatial,)` float32; at a dot that is certain about 1 with the inverse-distance
        kernel, the peak of the kernel with the Gaussian, a probability with the mask.
      density: `(*spatial,)` float32 cells per voxel, whose sum is the count, of a model with
        the Gaussian kernel or `config.target.count_head`; else None.
    """

    location: np.ndarray
    density: np.ndarray | None


class Model(Protocol):
    """The interface of `trained_model.TrainedModel`, which is built on the modules that use it."""

    @property
    def config(self) -> ml_collections.ConfigDict: ...
    @property
    def variables(self) -> Any: ...
    @property
    def normalisation(self) -> Normalisation: ...
    @property
    def step(self) -> int: ...
    @property
    def channels(self) -> int: ...
    @property
    def spacing(self) -> tuple[float, ...]: ...
    @property
    def spacing_known(self) -> bool: ...
    @property
    def thresholds(self) -> Mapping[str, float]: ...
    @property
    def count_factor(self) -> float: ...
    @property
    def reference(self) -> Mapping[str, tuple[float, float]]: ...
    @property
    def floor(self) -> float: ...
    @property
    def target_peak(self) -> float: ...
    @property
    def usual_diameter(self) -> float | None: ...
    @property
    def has_density(self) -> bool: ...
    @property
    def splits(self) -> bool: ...
    @property
    def split_reach(self) -> float: ...

    def with_settings(self, settings: Mapping[str, Any]) -> Model: ...
    def threshold_from(self, fraction: float | None) -> float: ...
    def check_fits(self, ndim: int, channels: int) -> None: ...
    def predict_maps(
        self,
        image: np.ndarray,
        *,
        original: np.ndarray | None = None,
        update: Callable[[int], object] = ...,
    ) -> Maps: ...
    def integral(self, density: np.ndarray | None) -> float | None: ...
    def split_merged(
        self,
        points: np.ndarray,
        scores: np.ndarray,
        density: np.ndarray | None,
        *,
        own: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]: ...


def cell_diameter(model: Model) -> float:
    """The diameter of a cell that a model knows, about, in the unit of its spacing."""
    known: float = model.config.data.diameter * model.spacing[-1]
    # Without one: a cell is found within a distance of its dot that lies about in it.
    return known or 4 / 3 * model.config.evaluation.max_distance


class Task(NamedTuple):
    """A piece of the work.

    Attributes:
      kind: 'read' a part of the image, 'compute' the maps of a run of tiles, 'find' the peaks of a
        tile.
      tiles: their numbers; of 'read' those of parts.
    """

    kind: str
    tiles: tuple[int, ...]

    @property
    def unit(self) -> str:
        """What it has several of, for a progress bar."""
        return "part" if self.kind == "read" else "tile"


# Runs some tasks of one kind, in any order; the text is a title for the progress bar.
Engine = Callable[[Sequence[Task], str], None]


class Progress(Protocol):
    """A progress bar: `with progress(title, total) as bar: bar.update(done)`."""

    def __call__(self, title: str, total: int, /) -> contextlib.AbstractContextManager[Any]:
        """Begins a bar over a total of voxels or tasks."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """An image in which a model is to find the cells.

    Attributes:
      model: a trained model.
      image: raw intensities, on the voxels of the model.
      folder: for the results of tasks, the job's own.
      mask: where cells are counted; None = everywhere.
      origin: for other processes to open the image, see `job_file.origin`; None = they cannot.
      check: raises an `InputError` where the folder is of another job by now; called before a
        task writes its result.
      plan: the tiles of the image.

    Raises:
      InputError: the image does not fit the model, or cannot be predicted in tiles.
    """

    model: Model
    image: Readable
    folder: Path
    mask: Mask | None = None
    origin: Mapping[str, Any] | None = None
    check: Callable[[], object] = lambda: None
    plan: Plan = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.model.check_fits(len(self.image.shape), self.image.channels)
        object.__setattr__(self, "plan", make_plan(self.model.config, self.image.shape))

    @functools.cached_property
    def survey(self) -> Survey:
        """The survey of the image, which `prepare` wrote."""
        return survey.load(self.folder / "survey.npz")

    @functools.cached_property
    def map(self) -> Any:
        """The model's maps `(*shape, 1 or 2)` of the tiles that are computed.

        Locations, 0 up to `model.floor`; then the density if the model splits cells by it.
        """
        return open_array(self.folder / "map.zarr")

    def read(self, region: Region) -> np.ndarray:
        """Normalised intensities of a part."""
        return self.survey.measured(self.image.read(region), region)


@contextlib.contextmanager
def silent(title: str, total: int) -> Iterator[Any]:
    """Progress that is not shown."""
    yield types.SimpleNamespace(update=lambda done: None)
