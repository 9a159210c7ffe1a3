"""A volume whose planes pass through the network, a slab at a time, has the maps of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import Array

from cellcount_jax.network import native
from cellcount_jax.network.passing import (
    COLLECTION,
    Lags,
    Passing,
    delayed,
    network_lags,
    planes_before,
    seen_of,
)
from cellcount_jax.network.sau_net import SAUNet

pytestmark = pytest.mark.usefixtures("quick_compiling")

GARBAGE = 1000.0  # in planes that are not of the volume
Strides = tuple[tuple[int, ...], ...]
FLAT, DEEP = ((1, 2, 2), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))


def variables_of(model: SAUNet, fill: Callable[[str, tuple[int, ...]], np.ndarray]) -> Any:
    """Variables of a model, each made from its name and shape."""
    example = jnp.zeros((1, *(math.prod(s) for s in zip(*model.strides, strict=True)), 1))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(fill(path[-1].key, leaf.shape), leaf.dtype),
        jax.eval_shape(model.init, jax.random.key(0), example),
    )


def random_variables(model: SAUNet) -> Any:
    rng = np.random.default_rng(0)

    def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, shape)
        width = math.sqrt(2 / math.prod(shape[:-1])) if name == "kernel" else 0.3
        return width * rng.normal(size=shape)

    return variables_of(model, fill)


def random_image(depth: int, plane: Sequence[int] = (8, 12)) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(1, depth, *plane, 1)).astype(np.float32)


def lags_of(model: SAUNet) -> Lags:
    strides = [stride[0] for stride in model.strides]
    block = model.block[0] // math.prod(strides) if model.block else 1
    return network_lags(strides, block=block, count_branch=model.count_branch)


def passed(
    model: SAUNet, variables: Any, image: np.ndarray, *, slab: int, first: int = 0, beside: int = 0
) -> np.ndarray:
    """The maps of a volume's planes from the first on, of a slab at a time.

    What is kept at the beginning, and what comes after the volume, is garbage; so is what is
    `beside` it in larger planes.
    """
    depth, plane, passes = image.shape[1], image.shape[2:-1], lags_of(model)
    size = jnp.asarray((depth, *plane), jnp.int32)
    filled = jnp.asarray((slab, *plane), jnp.int32) if beside else None

    def step(state: Any, x: Array, first: Array) -> tuple[Array, Any]:
        passing = Passing(first, size[0], passes)

        def apply(method: Any, x: Any, **options: Any) -> Any:
            nonlocal state
            options |= {"method": method, "passing": passing, "mutable": [COLLECTION]}
            found, state = model.apply({**variables, **state}, x, **options)
            return found

        levels = apply(SAUNet.encode, x, size=filled)
        levels = apply(SAUNet.attend, levels, size=size, origin=jnp.zeros(3, jnp.int32))
        return apply(SAUNet.decode, levels, size=filled), state

    ends = ((0, 0), (0, passes.maps + slab), (0, beside), (0, beside), (0, 0))
    planes = jnp.pad(jnp.asarray(image[:, first:]), ends, constant_values=GARBAGE)
    _, shapes = jax.eval_shape(step, {}, planes[:, :slab], jnp.int32(0))
    state = jax.tree.map(lambda kept: jnp.full(kept.shape, GARBAGE, kept.dtype), shapes)
    run, found = jax.jit(step), []
    for start in range(0, depth - first + passes.maps, slab):
        maps, state = run(state, planes[:, start : start + slab], jnp.int32(first + start))
        assert maps.shape[:2] == (1, slab) and maps.dtype == jnp.float32
        found.append(np.asarray(maps)[:, :, : plane[0], : plane[1]])
    return np.concatenate(found, axis=1)[:, passes.maps :][:, : depth - first]


def whole(model: SAUNet, variables: Any, image: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(model.apply)(variables, image))


@pytest.mark.parametrize(
    ("kernels", "strides", "block", "density", "depth", "slabs"),
    [
        ("fused", FLAT, (), "", 22, (2, 6, 22)),
        ("of XLA", FLAT, (), "head", 22, (2, 6)),
        # The last block ends beyond the volume.
        ("fused", FLAT, (4, 8, 8), "", 22, (4, 12)),
        ("native", FLAT, (4, 8, 8), "head", 22, (4, 12)),
        ("fused", FLAT, (6, 4, 8), "branch", 14, (6, 12)),
        ("of XLA", FLAT, (6, 4, 8), "branch", 14, (6, 12)),
        ("fused", DEEP, (), "branch", 20, (4, 24)),
        ("fused", DEEP, (8, 8, 4), "branch", 28, (8, 24)),
        ("native", ((1, 2, 2),), (3, 2, 4), "branch", 10, (3, 9)),
        ("fused", ((1, 2, 2),), (), "branch", 10, (1, 4)),
        ("of XLA", ((2, 2, 2),), (), "branch", 14, (2, 8)),
        ("fused", ((2, 2, 2),), (4, 2, 4), "branch", 14, (4, 8)),
        ("fused", ((2, 2, 2), (1, 2, 2)), (2, 4, 4), "branch", 12, (2, 6)),
        ("fused", ((1, 1, 2), (1, 2, 1)), (), "branch", 9, (1, 5)),
    ],
)
def test_planes_that_pass_have_the_maps_of_the_whole_volume(
    monkeypatch: pytest.MonkeyPatch,
    unwritten_is_nan: None,
    kernels: str,
    strides: Strides,
    block: tuple[int, ...],
    density: str,
    depth: int,
    slabs: tuple[int, ...],
) -> None:
    if kernels == "of XLA":
        monkeypatch.setattr(native, "available", lambda: False)
    elif not native.available():
        pytest.skip("there is no C++ compiler")
    model = SAUNet(
        features=2,
        strides=strides,
        block=block,
        linear=True,
        output_scale=1.0,
        count_scale=1.0 if density else 0.0,
        count_branch=density == "branch",
    )
    variables, image = random_variables(model), random_image(depth)
    expected = whole(model, variables, image)
    assert expected.shape[-1] == 1 + bool(density) and (expected.std((0, 1, 2, 3)) > 0.03).all()
    for slab in slabs:
        beside = 0 if slab == slabs[-1] else 16
        fused = model.clone(fused=kernels == "fused")
        found = passed(fused, variables, image, slab=slab, beside=beside)
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_planes_pass_in_bfloat16() -> None:
    options: dict[str, Any] = {"features": 4, "strides": FLAT, "block": (4, 8, 8)}
    options |= {"linear": True, "output_scale": 1.0, "count_scale": 1.0, "count_branch": True}
    full = SAUNet(**options)
    half = full.clone(dtype=jnp.bfloat16)
    variables, image = random_variables(full), random_image(22)
    exact, rounded = whole(full, variables, image), whole(half, variables, image)
    found = passed(half, variables, image, slab=4)
    # As far from the exact maps as those of the whole volume in bfloat16, and mostly the same.
    error = np.abs(rounded - exact).max()
    assert error > 1e-3
    assert np.abs(found - exact).max() < 2 * error
    assert np.abs(found - rounded).mean() < 0.1 * np.abs(rounded - exact).mean()


@pytest.mark.parametrize("block", [(), (4, 8, 8)], ids=["no attention", "attention"])
def test_planes_may_begin_to_pass_in_the_middle(block: tuple[int, ...]) -> None:
    """The maps are right as soon as nothing that they see came before."""
    model = SAUNet(features=2, strides=FLAT, block=block, linear=True, output_scale=1.0)
    variables, image = random_variables(model), random_image(36)
    # Two voxels of the coarsest level and of the finer ones, and what the decoder sees of them.
    right = 12 + {(): 16, (4, 8, 8): 20}[block]
    expected = whole(model, variables, image)[:, right:]
    found = passed(model, variables, image, slab=4, first=12)[:, right - 12 :]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("strides", "block", "branch"),
    [
        (FLAT, (), False),
        (FLAT, (4, 8, 8), False),
        (FLAT, (6, 4, 4), True),
        (DEEP, (), True),
        (DEEP, (12, 4, 4), False),
        (((1, 2, 2),), (), True),
        (((2, 2, 2),), (6, 2, 2), True),
        (((1, 1, 2), (1, 2, 1)), (), False),
    ],
)
def test_lags_are_as_long_as_the_maps_wait_for_what_they_see(
    monkeypatch: pytest.MonkeyPatch, strides: Strides, block: tuple[int, ...], branch: bool
) -> None:
    """With positive weights nothing cancels: whatever depends on a plane is not zero."""
    # In the mixed rows of the C++ kernels something does, and leaves a rounding error.
    monkeypatch.setattr(native, "available", lambda: False)
    model = SAUNet(features=1, strides=strides, block=block, output_scale=1.0)
    if branch:
        model = model.clone(count_scale=1.0, count_branch=True)
    constants = {"scale": 1.0, "var": 1.0, "bias": 0.0, "mean": 0.0}

    def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, constants.get(name, 3.0 / math.prod(shape[:-1])))

    variables = variables_of(model, fill)
    unit = block[0] if block else math.prod(stride[0] for stride in strides)
    depth = -(-50 // unit) * unit
    # An image for each plane, in which only that is not zero.
    images = np.zeros((depth, depth, *np.prod(strides, axis=0)[1:], 1), np.float32)
    images[np.arange(depth), np.arange(depth)] = 1
    sees = np.any(whole(model, variables, images) != 0, axis=(2, 3, 4)).T
    last = np.array([np.flatnonzero(planes).max() for planes in sees])
    lag = lags_of(model).maps

    def waits_enough(lag: int) -> bool:
        """Whether a map comes no earlier than the slab of the last plane that it sees."""
        comes = (np.arange(depth) + lag) // unit
        return bool((comes >= last // unit).all())

    assert lag == next(n for n in range(lag + 1) if waits_enough(n)), "no longer than needed"


class _Kept(nn.Module):
    """What is kept for a slab."""

    planes: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array, Array]:
        seen = jnp.concatenate(seen_of(self, "z", x, self.planes + 2), axis=1)
        return planes_before(self, "x", x, self.planes), delayed(self, "y", x, self.planes), seen


@pytest.mark.parametrize("planes", [0, 1, 3, 4, 5, 11])
@pytest.mark.parametrize("slab", [1, 4])
def test_planes_are_kept_for_as_long_as_they_are_needed(planes: int, slab: int) -> None:
    module, depth = _Kept(planes), 16
    state: Any = {}
    volume = jnp.arange(1.0, depth + 1).reshape(1, depth, 1, 1, 1) * jnp.ones((2, 1, 1, 3, 1))
    past = jnp.pad(volume, ((0, 0), (planes, 0), (0, 0), (0, 0), (0, 0)))
    further = jnp.pad(past, ((0, 0), (2, 0), (0, 0), (0, 0), (0, 0)))
    for first in range(0, depth, slab):
        x = volume[:, first : first + slab]
        (kept, late, seen), state = module.apply(state, x, mutable=[COLLECTION])
        np.testing.assert_array_equal(kept, past[:, first : first + planes])
        np.testing.assert_array_equal(late, past[:, first : first + slab])
        np.testing.assert_array_equal(seen[:, : slab + 2], further[:, first : first + slab + 2])
