"""Calibration on dots that a model itself has found: the threshold that gives them is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cellcount_jax import cli
from cellcount_jax.data.blocks import DONE, BlockStates, Grid, write_block_states
from cellcount_jax.data.labelled_area import LabelledArea, everywhere, parse_region
from cellcount_jax.errors import InputError
from cellcount_jax.evaluation import calibration
from cellcount_jax.evaluation.calibration import Dotted
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.points import read_points, write_points
from cellcount_jax.images.regions import Array
from cellcount_jax.inference import model_file, search
from cellcount_jax.inference.trained_model import TrainedModel

pytestmark = pytest.mark.usefixtures("quick_compiling")

SHAPE = (96, 128)
PIXELS = np.random.default_rng(0).integers(0, 255, (*SHAPE, 1)).astype(np.uint8)


@pytest.fixture
def model(untrained_model: Callable[..., TrainedModel]) -> TrainedModel:
    """Its map of `PIXELS` has peaks from 0.2 to 0.6."""
    made = untrained_model(2, target__scale=1.0, evaluation__max_distance=1.5)
    return dataclasses.replace(made, thresholds={"peaks": 0.52})


def found_at(model: TrainedModel, threshold: float, **fit: Any) -> np.ndarray:
    fitted = model.fitted(Array(PIXELS, 2), **fit)
    return fitted.back(model.find(fitted.image, threshold=threshold).points)


def dotted(model: TrainedModel, dots: np.ndarray, region: str = "", **fit: Any) -> Dotted:
    fitted = model.fitted(Array(PIXELS, 2), **fit)
    area = LabelledArea(parse_region(region, SHAPE))
    return Dotted("image", fitted, SHAPE, dots, area)


def test_the_threshold_that_made_the_dots_is_found(model: TrainedModel) -> None:
    dots = found_at(model, 0.3)
    calibrated, outcome = calibration.calibrate_on(model, [dotted(model, dots)])
    assert calibrated.thresholds["peaks"] == pytest.approx(0.3, abs=0.021)
    assert outcome.f1[1] > 0.9 > outcome.f1[0]
    assert outcome.dots == len(dots) and outcome.thresholds[0] == 0.52
    before = len(found_at(model, 0.52))
    assert outcome.found == (before, len(calibrated.find(Array(PIXELS, 2)).points))
    assert calibrated.variables is model.variables and model.thresholds["peaks"] == 0.52
    assert outcome.count_factors is None and not outcome.lowest
    text = "\n".join(calibration.lines(outcome))
    assert f"threshold 0.52 before, {calibrated.thresholds['peaks']:.2f} now" in text


def test_dots_and_cells_outside_of_the_region_do_not_count(model: TrainedModel) -> None:
    dots = found_at(model, 0.3)
    inside = dots[:, 1] < 49.5
    wrong = np.random.default_rng(1).uniform((0, 60), (95, 127), (40, 2)).astype(np.float32)
    images = [
        dotted(model, points, "x<50")
        for points in (dots, dots[inside], np.concatenate([dots[inside], wrong]))
    ]
    results = [calibration.calibrate_on(model, [image])[1] for image in images]
    assert results[0].dots == inside.sum() < len(dots) and results[0].f1[1] > 0.9
    assert results[0] == results[1] == results[2]


def test_a_thin_region_whose_cells_cross_its_border_is_not_taken_for_a_bad_one(
    model: TrainedModel,
) -> None:
    # Dots a pixel beside the cells: of a strip of 16 pixels many lie on the other side.
    dots = found_at(model, 0.3)
    dots[:, 0] += np.random.default_rng(0).choice([-1, 1], len(dots))
    dots = np.clip(dots, 0, (95, 127)).astype(np.float32)
    whole = calibration.calibrate_on(model, [dotted(model, dots)])[1]
    assert whole.f1[1] > 0.9
    for start in (10, 40, 70):
        image = dotted(model, dots, f"y>={start},y<{start + 16}")
        assert calibration.calibrate_on(model, [image])[1].f1[1] > 0.85


def test_tiles_give_the_same_and_only_those_of_the_region_are_computed(
    model: TrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    dots = found_at(model, 0.3)
    in_tiles = model.with_settings({"predict.max_voxels": 4000})
    whole = calibration.calibrate_on(model, [dotted(model, dots, "x<30")])[1]
    run, tiles = search.tasks.run, set()

    def counting(job: Any, task: Any, *update: Any) -> None:
        if task.kind == "compute":
            tiles.update(task.tiles)
        run(job, task, *update)

    monkeypatch.setattr(search.tasks, "run", counting)
    assert calibration.calibrate_on(in_tiles, [dotted(in_tiles, dots, "x<30")])[1] == whole
    assert len(tiles) < 4


def test_an_image_that_is_resampled(untrained_model: Callable[..., TrainedModel]) -> None:
    made = untrained_model(2, target__scale=1.0, evaluation__max_distance=1.5, data__diameter=9.0)
    model = dataclasses.replace(made, thresholds={"peaks": 0.52})
    dots = found_at(model, 0.3, diameter=6.0)
    image = dotted(model, dots, "y<60", diameter=6.0)
    assert image.fitted.image.shape == (144, 192)
    calibrated, outcome = calibration.calibrate_on(model, [image])
    assert outcome.f1[1] > 0.9
    assert calibrated.thresholds["peaks"] == pytest.approx(0.3, abs=0.03)


def test_several_images_are_pooled(model: TrainedModel) -> None:
    dots = found_at(model, 0.3)
    halves = [dotted(model, dots, region) for region in ("x<64", "x>=64")]
    outcome = calibration.calibrate_on(model, halves)[1]
    assert (outcome.images, outcome.dots) == (2, len(dots))
    assert outcome.f1[1] > 0.9


def test_the_factor_of_the_integral_makes_it_the_dots(
    untrained_model: Callable[..., TrainedModel],
) -> None:
    options = {"target__scale": 1.0, "evaluation__max_distance": 1.5, "target__count_head": True}
    made = untrained_model(2, **options)

    def brighter(path: Any, leaf: np.ndarray) -> np.ndarray:
        return leaf + 0.5 if [key.key for key in path[-2:]] == ["count_head", "bias"] else leaf

    variables = jax.tree_util.tree_map_with_path(brighter, made.variables)
    model = dataclasses.replace(
        made, variables=variables, thresholds={"peaks": 0.52}, count_factor=3.0
    )
    maps = model.predict_maps(PIXELS)
    quantile = float(np.quantile(maps.location, 0.995))
    dots = found_at(model.with_settings({"detect.split_from": 0.0}), quantile)
    inside = np.zeros(SHAPE, bool)
    inside[:70] = True
    for size in (100_000, 4000):
        one = model.with_settings({"predict.max_voxels": size})
        calibrated, outcome = calibration.calibrate_on(one, [dotted(one, dots, "y<70")])
        assert outcome.count_factors == (3.0, calibrated.count_factor)
        assert calibrated.integral(maps.density, region=inside) == pytest.approx(
            outcome.dots, rel=1e-3
        )


def test_too_few_dots_or_dots_of_something_else_are_refused(model: TrainedModel) -> None:
    with pytest.raises(InputError, match="image: 9 dots where they are complete; at least 10"):
        calibration.calibrate_on(model, [dotted(model, found_at(model, 0.3)[:9])])
    few = np.random.default_rng(0).uniform(0, (95, 127), (15, 2)).astype(np.float32)
    with pytest.raises(InputError, match="the model does not fit: at the best threshold F1 is 0"):
        calibration.calibrate_on(model, [dotted(model, few)])


def test_an_area_is_where_all_that_is_given_holds() -> None:
    grid = Grid((8, 12), (4, 4))
    states = np.zeros(grid.counts, np.uint8)
    states[1, 2] = states[0, 0] = DONE
    mask = np.ones((8, 12), bool)
    mask[7] = False
    area = LabelledArea(parse_region("x>=2", (8, 12)), BlockStates(grid, states, {}), mask)
    places = np.indices((8, 12)).reshape(2, -1).T.astype(np.float32)
    expected = grid.mask(states == DONE) & mask & (places[:, 1].reshape(8, 12) >= 2)
    np.testing.assert_array_equal(area.holds(places).reshape(8, 12), expected)
    for y in range(0, 8, 2):
        for x in range(0, 12, 3):
            region = (slice(y, y + 2), slice(x, x + 3))
            if expected[region].any():
                assert area.touches(region)
    assert not area.touches((slice(7, 8), slice(8, 12)))
    assert not area.touches((slice(0, 3), slice(4, 12)))
    assert everywhere((8, 12)).holds(places).all()


@pytest.fixture
def files(tmp_path: Path, model: TrainedModel) -> Path:
    """A model, and an image with dots of which those with x < 64 alone are complete."""
    model_file.export_model(model, tmp_path / "old.zip", card="# old\n\nA random one.\n\n## Data\n")
    write_image(tmp_path / "a.png", PIXELS)
    dots = found_at(model, 0.3)
    write_points(tmp_path / "a.csv", dots[(dots[:, 1] < 63.5) | (dots[:, 0] < 20)])
    return tmp_path


def call(folder: Path, *arguments: str, image: str = "a.png") -> int:
    paths = ["--model", str(folder / "old.zip"), "--output", str(folder / "new.zip")]
    return cli.main(["calibrate", str(folder / image), *paths, *arguments])


def test_the_command(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(files, "--region", "x<64") == 0
    text = capsys.readouterr().out
    new = model_file.load_model(files / "new.zip")
    assert new.thresholds["peaks"] == pytest.approx(0.3, abs=0.021)
    dots = read_points(files / "a.csv", ndim=2)
    inside = int((dots[:, 1] < 63.5).sum())
    assert f"now, on {inside} dots" in text
    card = model_file.read_card(files / "new.zip")
    assert card.startswith("# old, calibrated\n\nold with the threshold for images such as a.png")
    assert f"on {inside} dots" in card and "A random one." in card and "### Data" in card
    command = next(line for line in text.splitlines() if line.startswith("  cellcount "))
    written = command.split()[1:]
    written[-1] = str(files / "counted")
    assert cli.main(written) == 0
    counted = read_points(files / "counted" / "a" / "points.csv", ndim=2)
    assert len(counted) == len(new.find(Array(PIXELS, 2)).points)
    content = (files / "new.zip").read_bytes()
    assert call(files, "--region", "x<64") == 1
    assert "new.zip: is there already" in capsys.readouterr().err
    assert call(files, "--region", "x<64", "--overwrite", "--scene", "0") == 0
    assert " --scene 0" in capsys.readouterr().out
    assert (files / "new.zip").read_bytes() == content


def test_the_next_command_has_what_was_labelled(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Grid(SHAPE, (48, 32))
    states = np.zeros(grid.counts, np.uint8)
    states[:, :2] = DONE
    about = {"scene": "0", "axes": "YX", "time": 0}
    write_block_states(files / "a.label.json", BlockStates(grid, states, about))
    assert call(files) == 0
    told = capsys.readouterr().out.splitlines()[-1].split("counted/")[1].split(" --")[1:]
    assert sorted(told) == ["axes YX", "scene 0", "time 0"]


def test_blocks_that_are_done_and_a_mask(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = Grid(SHAPE, (48, 32))
    states = np.zeros(grid.counts, np.uint8)
    blocks = files / "a.label.json"
    write_block_states(blocks, BlockStates(grid, states, {}))
    assert call(files) == 1
    assert "none of its blocks is done" in capsys.readouterr().err
    states[:, :2] = DONE
    write_block_states(blocks, BlockStates(grid, states, {}))
    assert call(files) == 0
    by_blocks = model_file.load_model(files / "new.zip").thresholds
    blocks.unlink()
    write_image(files / "a_valid.png", grid.mask(states == DONE).astype(np.uint8))
    assert call(files, "--overwrite") == 0
    assert model_file.load_model(files / "new.zip").thresholds == by_blocks
    assert call(files, "--overwrite", image="") == 0  # the folder
    assert model_file.load_model(files / "new.zip").thresholds == by_blocks


@pytest.mark.parametrize(
    ("arguments", "image", "message"),
    [
        (["--region", "z<3"], "a.png", "'z<3' is not an axis of y, x"),
        (["--region", "x<2"], "a.png", "at least 10 are needed"),
        ([], "b.png", "b.png: no such file or folder"),
        ([], "c.png", "c.png: has no dots; c.csv beside it would be its dots"),
        (["--rescale"], "a.png", "trained on images without a voxel size"),
        (["--diameter", "-3"], "a.png", "--diameter -3.0: is a positive number of pixels"),
        (["--diameter", "9"], "a.png", "a.png: the model does not say how large its cells are"),
    ],
)
def test_what_cannot_be_used(
    files: Path,
    arguments: list[str],
    image: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_image(files / "c.png", PIXELS)
    assert call(files, *arguments, image=image) == 1
    assert message in capsys.readouterr().err
    assert not (files / "new.zip").exists()
