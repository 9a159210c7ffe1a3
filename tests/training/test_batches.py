"""Batches: every voxel of every crop against the whole image that it was cut from."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from scipy import ndimage

from cellcount_jax.config import default_config
from cellcount_jax.data.sample import Dataset, Sample, voxels_inside
from cellcount_jax.errors import InputError
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.maps import targets
from cellcount_jax.training import batches
from cellcount_jax.training import stack as stacking

pytestmark = pytest.mark.usefixtures("strict_dtypes")


def make_config(**overrides: Any) -> ml_collections.ConfigDict:
    """The defaults with `section__name` set."""
    config = default_config()
    config.target.max_distance = 6.0
    for key, value in overrides.items():
        section, _, name = key.partition("__")
        config[section][name] = value
    return config


def unchanged(channels: int) -> Normalisation:
    return Normalisation("dataset", (0.0,) * channels, (1.0,) * channels)


def make_sample(
    number: int,
    shape: tuple[int, ...],
    *,
    dots: int = 0,
    valid: np.ndarray | None = None,
    labelled: bool = True,
) -> Sample:
    """A sample whose channels are its number and its voxels' indices, all from 1."""
    rng = np.random.default_rng(number)
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    image = np.concatenate([np.full((*shape, 1), number), indices], axis=-1) + 1
    labels = ndimage.label(rng.random(shape) < 0.4)[0] + 3 * (rng.random(shape) < 0.1)
    return Sample(
        name=f"image{number}",
        image=image.astype(np.float32),
        points=rng.uniform(-0.5, np.asarray(shape) - 0.51, (dots, len(shape))).astype(np.float32)
        if labelled
        else None,
        spacing=(1.0,) * len(shape),
        valid=valid,
        labels=labels.astype(np.int32),
        source=f"folder/image{number}.tif",
    )


def make_dataset(labelled: Sequence[Sample], unlabelled: Sequence[Sample] = ()) -> Dataset:
    return Dataset("made up", tuple(labelled), tuple(unlabelled), {})


def box(shape: tuple[int, ...], *slices: slice) -> np.ndarray:
    valid = np.zeros(shape, bool)
    valid[slices] = True
    return valid


def samples_2d() -> list[Sample]:
    """Different sizes; all valid, a box with a hole, a small box at the end, no dots."""
    holed = box((24, 18), slice(3, 21), slice(4, 18))
    holed[8:13, 9:12] = False
    return [
        make_sample(0, (20, 30), dots=5),
        make_sample(1, (24, 18), dots=12, valid=holed),
        make_sample(2, (17, 19), dots=20, valid=box((17, 19), slice(14, 17), slice(12, 19))),
        make_sample(3, (16, 9)),
    ]


def samples_3d() -> list[Sample]:
    return [
        make_sample(0, (5, 12, 9), dots=4),
        make_sample(1, (6, 8, 14), dots=9, valid=box((6, 8, 14), slice(1, 6), slice(0, 7))),
    ]


def inside(sample: Sample) -> np.ndarray:
    """Where labels count."""
    return np.ones(sample.shape, bool) if sample.valid is None else sample.valid


def whole_target(
    sample: Sample, config: ml_collections.ConfigDict, spacing: Sequence[float]
) -> np.ndarray:
    """The target of a whole image, from the dots in its valid region."""
    t = config.target
    if t.kernel == "mask":
        return np.asarray(targets.mask_target(jnp.asarray(sample.labels)))
    assert sample.points is not None
    edges = np.asarray(spacing) / (t.unit or min(spacing))
    counts = np.zeros(sample.shape)
    for voxel in np.floor(sample.points + 0.5).astype(int):
        counts[tuple(voxel)] += inside(sample)[tuple(voxel)]
    if t.kernel == "gaussian":
        for axis, edge in enumerate(edges):
            counts = ndimage.gaussian_filter1d(
                counts,
                t.sigma / edge,
                axis=axis,
                mode="constant",
                radius=int(np.ceil(4 * t.sigma / edge)),
            )
        return counts
    if not counts.any():
        return counts
    distance = ndimage.distance_transform_edt(counts == 0, sampling=edges)
    value = 1 / (distance ** (t.gamma[0] * distance + t.gamma[1]) + t.c)
    return np.where(distance <= t.max_distance, value, 0)


def orientation(indices: np.ndarray) -> tuple[tuple[int, bool], ...]:
    """Per axis of a crop, which axis of the image it is and whether it runs backwards."""
    found = []
    for axis in range(indices.ndim - 1):
        step = np.diff(indices, axis=axis)
        moved = np.abs(step).max(axis=tuple(range(indices.ndim - 1)))
        assert sorted(moved) == [0] * (len(moved) - 1) + [1]
        which = int(np.argmax(moved))
        assert len(np.unique(step[..., which])) == 1
        found.append((which, bool(step[..., which].flat[0] < 0)))
    return tuple(found)


def assert_in_image_and_box(
    crop: np.ndarray, samples: Sequence[Sample], shape: Sequence[int]
) -> tuple[int, np.ndarray]:
    """Checks where a crop comes from; gives its image's number and its voxels' indices."""
    assert crop.min() >= 1, "padding is in the crop"
    number, indices = int(crop.flat[0]) - 1, crop[..., 1:].astype(int) - 1
    assert (crop[..., 0] == number + 1).all()
    sample = samples[number]
    ranges = np.argwhere(inside(sample) if sample.points is not None else np.ones(sample.shape))
    for axis, size in enumerate(shape):
        low, high = ranges[:, axis].min(), ranges[:, axis].max() + 1
        first, end = indices[..., axis].min(), indices[..., axis].max() + 1
        if high - low >= size:
            assert low <= first and end <= high
        else:
            assert first <= low and high <= end
    return number, indices


@dataclasses.dataclass(frozen=True)
class Case:
    """A config, its voxels, and how many orientations its crops may have."""

    overrides: dict[str, Any]
    spacing: tuple[float, ...]
    orientations: int


CASES = {
    "all quarter turns": Case({"train__crop": (8, 8)}, (1.0, 1.0), 8),
    "not square voxels": Case({"train__crop": (8, 8), "target__unit": 0.5}, (0.5, 0.8), 4),
    "cut cells are left out": Case(
        {"train__crop": (8, 8), "train__cut_margin": 1.9}, (1.0, 1.0), 8
    ),
    "3D, Gaussian": Case(
        {"train__crop": (3, 6, 6), "target__kernel": "gaussian"}, (3.0, 1.0, 1.0), 16
    ),
    "3D, full annotation, not turned": Case(
        {"train__crop": (2, 6, 8), "target__kernel": "mask", "augment__flips": False},
        (1.0, 1.0, 1.0),
        1,
    ),
    "3D, cut cells are left out": Case(
        {"train__crop": (4, 6, 6), "train__cut_margin": 2.0}, (2.5, 1.0, 1.0), 16
    ),
}


def uncut(
    indices: np.ndarray, shape: Sequence[int], margins: Sequence[int]
) -> tuple[np.ndarray, list[bool]]:
    """The voxels that are no nearer to a crop's edge than a margin, unless it is the image's;
    and for each axis whether the crop touches the image's end."""
    kept, touches = np.ones(indices.shape[:-1], bool), []
    for axis, (size, margin) in enumerate(zip(shape, margins, strict=True)):
        at = indices[..., axis]
        first, last = at.min(), at.max()
        kept &= (at >= first + margin) | (first == 0)
        kept &= (at <= last - margin) | (last == size - 1)
        touches.append(bool(first == 0 or last == size - 1))
    return kept, touches


@pytest.mark.parametrize("name", CASES)
def test_crops_are_pieces_of_their_images(name: str) -> None:
    case = CASES[name]
    config = make_config(**case.overrides)
    crop = config.train.crop
    samples = samples_2d() if len(crop) == 2 else samples_3d()
    stack = stacking.on_device(
        make_dataset(samples), unchanged(samples[0].image.shape[-1]), config
    ).labelled
    draw = jax.jit(
        functools.partial(
            batches.draw_labelled,
            config=config,
            geometry=targets.target_geometry(config, case.spacing),
        )
    )
    keys = jax.random.split(jax.random.key(0), 160)
    batch = {name: np.asarray(value) for name, value in draw(keys, stack).items()}
    assert batch["image"].shape == (160, *crop, len(crop) + 1)
    assert batch["target"].shape == batch["valid"].shape == (160, *crop, 1)
    assert batch["valid"].dtype == bool and batch["target"].dtype == np.float32
    wholes = [whole_target(sample, config, case.spacing) for sample in samples]
    margin = config.train.cut_margin
    margins = [round(margin / edge) for edge in case.spacing]
    numbers, orientations, touching = [], [], []
    for image, target, valid in zip(batch["image"], batch["target"], batch["valid"], strict=True):
        number, indices = assert_in_image_and_box(image, samples, crop)
        voxels = tuple(np.moveaxis(indices, -1, 0))
        counts = stacking.trusted(samples[number], config)
        kept, touches = uncut(indices, samples[number].shape, margins)
        np.testing.assert_array_equal(valid[..., 0], counts[voxels] & kept)
        np.testing.assert_allclose(target[..., 0], wholes[number][voxels], atol=1e-5)
        numbers.append(number)
        orientations.append(orientation(indices))
        touching.append(touches[-1] and number == 0)
    # Of the 30 columns of the 2D image 0 9 are within a half crop of an end; drawn evenly, 2 of 23
    # crops touch one.
    if margin:
        assert sum(touching) > 0.2 * numbers.count(0)
    assert len(set(orientations)) == case.orientations
    assert np.bincount(numbers, minlength=len(samples)).min() > 80 / len(samples)
    assert batch["target"].max() == pytest.approx(1) or config.target.kernel == "gaussian"

    # An example depends on its own key only, not on its place or on the device count.
    for name, value in draw(keys[::-1], stack).items():
        np.testing.assert_array_equal(value[::-1], batch[name])


@pytest.mark.parametrize("kernel", ["inverse_distance", "gaussian"])
def test_where_a_target_counts_no_unknown_dot_could_change_it(kernel: str) -> None:
    config = make_config(target__kernel=kernel)
    rng = np.random.default_rng(0)
    valid = box((40, 50), slice(0, 30))
    dots = np.stack([rng.integers(0, 30, 6), rng.integers(0, 50, 6)], -1).astype(np.float32)
    known = dataclasses.replace(make_sample(0, (40, 50)), points=dots, valid=valid)
    unknown = np.argwhere(~valid).astype(np.float32)
    worst = dataclasses.replace(known, points=np.concatenate([dots, unknown]), valid=None)
    alone = whole_target(known, config, (1.0, 1.0))
    crowded = whole_target(worst, config, (1.0, 1.0))
    counts = stacking.trusted(known, config)
    np.testing.assert_allclose(alone[counts], crowded[counts], atol=1e-3)
    assert counts.sum() > 300 and not counts[~valid].any()
    if kernel == "inverse_distance":
        assert (crowded > alone)[valid & ~counts].all()
    whole = dataclasses.replace(known, valid=None)
    assert stacking.trusted(whole, config).all()


def test_a_labelled_part_that_teaches_next_to_nothing_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = make_config(train__crop=(8, 8))
    sliver = make_sample(0, (40, 50), valid=box((40, 50), slice(10, 12)))
    with caplog.at_level("WARNING", logger="absl"):
        stacking.on_device(make_dataset([sliver]), unchanged(3), config)
        assert "0.0 % of what is labelled is learned from" in caplog.text
        caplog.clear()
        stacking.on_device(make_dataset(samples_2d()[:1]), unchanged(3), config)
        assert not caplog.text


def test_without_unlabelled_images_the_labelled_ones_serve() -> None:
    data = stacking.on_device(
        make_dataset(samples_2d()), unchanged(3), make_config(train__crop=(8, 8))
    )
    assert data.unlabelled is not None
    for name in ("images", "low", "high"):
        np.testing.assert_array_equal(getattr(data.unlabelled, name), getattr(data.labelled, name))


def test_unlabelled_crops() -> None:
    config = make_config(train__crop=(8, 8))
    samples = [
        make_sample(0, (9, 8), labelled=False),
        make_sample(1, (20, 15), labelled=False, valid=box((20, 15), slice(0, 2))),
    ]
    stack = stacking.on_device(make_dataset(samples_2d(), samples), unchanged(3), config).unlabelled
    assert stack is not None
    assert stack.points is None and stack.valid is None and stack.cells is None
    draw = functools.partial(
        batches.draw_unlabelled,
        config=config,
        geometry=targets.target_geometry(config, (1.0, 1.0)),
    )
    crops = np.asarray(jax.jit(draw)(jax.random.split(jax.random.key(1), 100), stack))
    found = [assert_in_image_and_box(crop, samples, (8, 8)) for crop in crops]
    assert {number for number, _ in found} == set(range(len(samples)))
    assert len({orientation(indices) for _, indices in found}) == 8


def test_dots_outside_the_valid_region_are_dropped() -> None:
    samples = samples_2d()
    stack = stacking.on_device(make_dataset(samples), unchanged(3), make_config(train__crop=(8, 8)))
    points, mask = stack.labelled.points, stack.labelled.mask
    assert points is not None and mask is not None
    for i, sample in enumerate(samples):
        assert sample.points is not None
        voxels = np.floor(sample.points + 0.5).astype(int)
        expected = voxels[inside(sample)[tuple(voxels.T)]]
        assert len(expected) < len(voxels) or sample.valid is None
        np.testing.assert_array_equal(np.asarray(points[i])[np.asarray(mask[i])], expected)
        np.testing.assert_array_equal(voxels_inside(sample), expected)


def test_no_dot_at_all_is_legal() -> None:
    dataset = make_dataset([make_sample(0, (9, 8)), make_sample(1, (8, 8))])
    stack = stacking.on_device(dataset, unchanged(3), make_config(train__crop=(8, 8))).labelled
    assert stack.points is not None and stack.mask is not None
    assert stack.points.shape[:-1] == stack.mask.shape == (2, 1) and not stack.mask.any()


@pytest.mark.parametrize("kernel", ["inverse_distance", "gaussian"])
@pytest.mark.parametrize(
    ("shape", "spacing"), [((30, 26), (1.0, 1.0)), ((12, 20, 18), (2.5, 1.0, 1.0))]
)
def test_target_of_a_crop_is_the_crop_of_the_target(
    kernel: str, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    config = make_config(target__kernel=kernel)
    geometry = targets.target_geometry(config, spacing)
    make = functools.partial(batches.make_target, config=config, geometry=geometry)
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.integers(0, shape, (14, len(shape))), jnp.int32)
    mask = jnp.arange(14) != 3
    whole = jax.jit(lambda p: make(p, mask, None, shape))(points)
    crop = tuple(size // 3 for size in shape)
    cut = jax.jit(lambda p: make(p, mask, None, crop))
    for _ in range(6):
        origin = rng.integers(0, np.subtract(shape, crop) + 1).astype(np.int32)
        piece = tuple(slice(o, o + c) for o, c in zip(origin, crop, strict=True))
        shifted = points - jnp.asarray(origin)[None, :]
        np.testing.assert_allclose(cut(shifted), whole[piece], atol=1e-6)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (3.0, 1.0, 1.5), (6.0, 1.62, 1.62)])
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"target__c": 2.0},
        {"target__kernel": "gaussian"},
        {"target__kernel": "gaussian", "target__sigma": 2.3, "target__unit": 1.2},
    ],
)
def test_the_peak_is_the_target_at_a_lone_dot(
    overrides: dict[str, Any], spacing: tuple[float, ...]
) -> None:
    config = make_config(**overrides)
    geometry = targets.target_geometry(config, spacing)
    dot = jnp.full((1, len(spacing)), 2, jnp.int32)
    make = functools.partial(batches.make_target, config=config, geometry=geometry)
    target = jax.jit(lambda p: make(p, jnp.ones(1, bool), None, (5,) * len(spacing)))(dot)
    assert targets.peak_value(config, geometry) == pytest.approx(float(target.max()), rel=1e-5)


@pytest.mark.parametrize(("ndim", "spacing"), [(2, (1.0, 1.0)), (3, (3.0, 1.0, 1.0))])
def test_the_density_of_the_count_head_sums_to_the_number_of_dots(
    ndim: int, spacing: tuple[float, ...]
) -> None:
    config = make_config(target__count_head=True, target__count_sigma=2.0)
    geometry = targets.target_geometry(config, spacing)
    assert geometry.margin[-1] >= 8
    points = jnp.asarray([[12] * ndim, [13] * ndim, [12] * ndim, [16] * ndim], jnp.int32)
    mask = jnp.asarray([True, True, True, False])
    make = functools.partial(batches.make_target, config=config, geometry=geometry)
    maps = jax.jit(lambda p: make(p, mask, None, (32,) * ndim))(points)
    assert maps.shape == (*(32,) * ndim, 2)
    assert float(maps[..., 1].sum()) == pytest.approx(3, abs=1e-3)
    assert float(maps[..., 0].max()) == pytest.approx(1)
    assert targets.peak_value(config, geometry) == pytest.approx(1)


@pytest.mark.parametrize(
    ("overrides", "spacing", "edges", "margin"),
    [
        ({"target__count_head": True}, (1.0, 1.0), (1.0, 1.0), (9, 9)),
        ({}, (1.0, 1.0), (1.0, 1.0), (7, 7)),
        ({}, (6.0, 2.0, 2.0), (3.0, 1.0, 1.0), (3, 7, 7)),
        ({"target__unit": 4.0}, (6.0, 2.0, 2.0), (1.5, 0.5, 0.5), (5, 13, 13)),
        ({"target__kernel": "gaussian", "target__sigma": 2.0}, (1.0, 0.5), (2.0, 1.0), (5, 9)),
        ({"target__kernel": "mask"}, (6.0, 2.0, 2.0), (3.0, 1.0, 1.0), (1, 1, 1)),
    ],
)
def test_target_geometry(
    overrides: dict[str, Any],
    spacing: tuple[float, ...],
    edges: tuple[float, ...],
    margin: tuple[int, ...],
) -> None:
    geometry = targets.target_geometry(make_config(**overrides), spacing)
    assert geometry == targets.TargetGeometry(edges, margin)


def test_images_are_normalised() -> None:
    samples = [make_sample(0, (9, 9)), make_sample(1, (12, 10))]
    normalisation = Normalisation("standardise")
    data = stacking.on_device(make_dataset(samples), normalisation, make_config(train__crop=(8, 8)))
    for sample, image in zip(samples, data.labelled.images, strict=True):
        piece = tuple(slice(size) for size in sample.shape)
        np.testing.assert_allclose(image[piece], normalisation(sample.image), atol=1e-6)


@pytest.mark.parametrize(
    "overrides", [{"consistency__weight": 0.0}, {"train__batch_unlabelled": 0}]
)
def test_supervised_only_has_no_unlabelled_images(overrides: dict[str, Any]) -> None:
    config = make_config(train__crop=(8, 8), **overrides)
    dataset = make_dataset([make_sample(0, (9, 9))], [make_sample(1, (9, 9), labelled=False)])
    assert stacking.on_device(dataset, unchanged(3), config).unlabelled is None


def test_a_crop_larger_than_an_image_is_refused() -> None:
    config = make_config(train__crop=(8, 10))
    good, bad = make_sample(0, (9, 12)), make_sample(1, (12, 9))
    message = r"folder/image1\.tif: the image is 12 x 9 voxels, .* config\.train\.crop = 8 x 10"
    with pytest.raises(InputError, match=message):
        stacking.on_device(make_dataset([good, bad]), unchanged(3), config)
    without = dataclasses.replace(bad, points=None)
    with pytest.raises(InputError, match=message):
        stacking.on_device(make_dataset([good], [without]), unchanged(3), config)


def test_full_annotation_needs_labels() -> None:
    config = make_config(train__crop=(8, 8), target__kernel="mask")
    missing = dataclasses.replace(make_sample(1, (9, 9)), labels=None)
    message = r"folder/image1\.tif: config\.target\.kernel = 'mask' .*\(image1_labels\.tif"
    with pytest.raises(InputError, match=message):
        stacking.on_device(make_dataset([make_sample(0, (9, 9)), missing]), unchanged(3), config)


def test_an_empty_valid_region_is_refused() -> None:
    sample = make_sample(4, (9, 9), dots=3, valid=np.zeros((9, 9), bool))
    with pytest.raises(InputError, match=r"folder/image4\.tif: the valid region is empty"):
        stacking.on_device(make_dataset([sample]), unchanged(3), make_config(train__crop=(8, 8)))


def test_unlabelled_images_are_drawn_by_their_shares() -> None:
    images = jnp.arange(3.0)[:, None, None, None] * jnp.ones((1, 8, 8, 1))
    corners = jnp.zeros((3, 2), jnp.int32)
    drawn = jnp.cumsum(jnp.asarray([0.1, 0.7, 0.2]))
    stack = stacking.ImageStack(images, corners, corners + 8, drawn=drawn)
    config = make_config(train__crop=(8, 8), data__ndim=2)
    geometry = targets.target_geometry(config, (1.0, 1.0))
    keys = jax.random.split(jax.random.key(0), 1000)

    found = batches.draw_unlabelled(keys, stack, config=config, geometry=geometry)

    counts = np.bincount(np.asarray(found[:, 0, 0, 0]).astype(int), minlength=3)
    np.testing.assert_allclose(counts / 1000, [0.1, 0.7, 0.2], atol=0.05)
