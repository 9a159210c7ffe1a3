"""Arrays that are given to a model in Python: what is used of them, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import cellcount_jax
from cellcount_jax import InputError, TrainedModel

pytestmark = [
    pytest.mark.usefixtures("quick_compiling"),
    pytest.mark.filterwarnings("ignore::cellcount_jax.inference.doubts.DoubtfulCountWarning"),
]
NOISE = np.random.default_rng(0).uniform(0, 200, (60, 44)).astype(np.float32)


def larger(model: TrainedModel) -> TrainedModel:
    """The model with weights that give peaks of all heights."""
    variables = jax.tree.map(lambda values: values * 3, model.variables)
    return dataclasses.replace(model, variables=variables)


def test_one_channel_of_several(untrained_model: Callable[..., TrainedModel]) -> None:
    model = untrained_model(2)
    expected = model.predict(NOISE)
    assert len(expected.points) > 20
    for number in (0, 1):
        several = np.stack([NOISE, np.zeros_like(NOISE)][:: 1 - 2 * number], axis=-1)
        found = model.predict(several, channel=number)
        np.testing.assert_array_equal(found.points, expected.points)
        np.testing.assert_array_equal(found.scores, expected.scores)


def test_a_threshold_and_a_mask_choose_among_the_cells(
    untrained_model: Callable[..., TrainedModel],
) -> None:
    model = larger(untrained_model(2))
    points, scores = model.predict(NOISE, threshold=0.05)
    least = 0.05 * model.target_peak
    higher = model.predict(NOISE, threshold=0.2)
    kept = scores > 4 * least
    assert 0 < kept.sum() < len(points)
    np.testing.assert_array_equal(higher.points, points[kept])
    mask = np.random.default_rng(1).uniform(size=NOISE.shape) < 0.5
    within = mask[tuple(points.astype(int).T)]
    for tiles in (10**9, 1024):
        tiled = model.with_settings({"predict.max_voxels": tiles})
        found = tiled.predict(NOISE, threshold=0.05, mask=mask)
        np.testing.assert_array_equal(found.points, points[within])
    corner = np.zeros(NOISE.shape, np.uint8)
    corner[:5, :5] = 7
    few = tiled.predict(NOISE, threshold=0.05, mask=corner).points
    np.testing.assert_array_equal(few, points[(points < 5).all(1)])


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        ("a.tif", {}, r"'a.tif' is a path; model.count\(path, output=folder\)"),
        (Path("a.tif"), {}, "'a.tif' is a path"),
        ([[1, 2]], {}, "not a list"),
        (np.zeros((4, 4), complex), {}, "real numbers, not of complex128"),
        (np.zeros((0, 4)), {}, "array of 0 x 4 is empty"),
        (np.where(NOISE[3, 5] == NOISE, np.nan, NOISE), {}, r"NaN.*\(y, x\) = \(3, 5\)"),
        (np.full((8, 8), 1e300), {}, "above 1e.30"),
        (np.zeros((3, 8, 8)), {}, "2D with 8 channels.*channel=, or move the axis"),
        (NOISE, {"channel": 0}, "channel 0: an array of 60 x 44 has no axis of channels"),
        (NOISE[..., None], {"channel": -1}, "has the channels 0 to 0"),
        (NOISE, {"threshold": 1.5}, "threshold 1.5: must be between 0 and 1"),
        (NOISE, {"threshold": float("nan")}, "threshold nan: must be between"),
        (NOISE, {"threshold": 0.01}, "threshold 0.01: must be at least 0.05"),
        (NOISE, {"diameter": float("nan")}, "diameter nan: is a positive number"),
        (NOISE, {"spacing": (1.0, -1.0)}, "2 positive voxel edges"),
        (NOISE, {"spacing": 1.0}, "2 positive voxel edges"),
        (NOISE, {"mask": NOISE[:-1]}, "mask: is an array of 59 x 44, the image of 60 x 44"),
        (NOISE, {"mask": "m.tif"}, "'m.tif' is a path"),
        (NOISE, {"mask": NOISE * np.nan}, "mask: has NaN"),
    ],
)
def test_what_is_refused(
    untrained_model: Callable[..., TrainedModel],
    array: Any,
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        untrained_model(2).predict(array, **options)


def test_a_model_is_shown_in_a_line() -> None:
    model = cellcount_jax.load_model("nuclei3d")
    assert repr(model) == (
        "<TrainedModel 'nuclei3d': 3D, 1 channel, voxels of 6 x 1.62 x 1.62 um, threshold 0.3,"
        f" step {model.step}>"
    )
    assert model.with_settings({"predict.flips": False}).name == "nuclei3d"


@pytest.mark.parametrize("own", [False, True])
def test_what_is_compiled_is_kept(
    untrained_model: Callable[..., TrainedModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: bool,
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / name)
    names = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        jax.config.update(names[0], "of the user" if own else None)
        with pytest.raises(InputError):  # nothing is compiled
            untrained_model(2).predict("a.tif")
        kept = getattr(jax.config, names[0])
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    assert kept == "of the user" if own else Path(kept).is_relative_to(tmp_path)
