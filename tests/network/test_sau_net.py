"""The network: its parts, sizes and types, and what an output voxel sees, in tiles or not."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from jax import Array

from cellcount_jax.config import default_config
from cellcount_jax.network import native
from cellcount_jax.network.layers import max_pool
from cellcount_jax.network.sau_net import SAUNet, create_model, encoder_radius, tile_radius


@pytest.fixture(autouse=True, scope="module")
def fast_compilation() -> Iterator[None]:
    """Compiling takes most of the time of these tests, and speed does not matter to them."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def variables_like(shapes: Any, fill: Callable[[str, tuple[int, ...]], np.ndarray]) -> Any:
    """Variables of given shapes without the long compilation of real initial ones."""

    def one(path: tuple[Any, ...], leaf: Any) -> Array:
        return jnp.asarray(fill(path[-1].key, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


def random_variables(module: Any, *inputs: Array, seed: int = 0) -> Any:
    """Random weights, and running statistics that are not those of a new network."""
    rng = np.random.default_rng(seed)

    def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, shape)
        width = math.sqrt(2 / math.prod(shape[:-1])) if name == "kernel" else 0.3
        return width * rng.normal(size=shape)

    shapes = jax.eval_shape(lambda *x: module.init(jax.random.key(0), *x, train=False), *inputs)
    return variables_like(shapes, fill)


def small_config(*, features: int, size: int) -> ml_collections.ConfigDict:
    """The default's network, narrower and for small 2D images."""
    config = default_config()
    config.model.features = features
    config.train.crop = (size, size)
    return config


def random_image(shape: Sequence[int], seed: int = 1) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("size", "stride"), [((6, 8), (2, 2)), ((6, 8), (3, 4)), ((3, 4, 6), (1, 2, 3))]
)
def test_max_pool(size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    x = np.asarray(random_image((2, *size, 3)))
    pooled = np.asarray(max_pool(jnp.asarray(x), stride))
    assert pooled.shape[1:-1] == tuple(n // s for n, s in zip(size, stride, strict=True))
    for i in np.ndindex(*pooled.shape[1:-1]):
        window = tuple(slice(k * s, (k + 1) * s) for k, s in zip(i, stride, strict=True))
        expected = x[(slice(None), *window)].reshape(2, -1, 3).max(axis=1)
        np.testing.assert_array_equal(pooled[(slice(None), *i)], expected)


def test_the_parts_make_the_whole_and_padding_is_with_zeros() -> None:
    model = SAUNet(features=2, strides=((2, 2),) * 2, block=(8, 8), linear=True, output_scale=1.0)
    cut = random_image((2, 13, 18, 3))
    image = jnp.pad(cut, ((0, 0), (0, 3), (0, 2), (0, 0)))
    variables = random_variables(model, image)

    def parts(variables: Any, x: Array) -> Any:
        levels = model.apply(variables, x, method=SAUNet.encode)
        attended = model.apply(variables, levels, method=SAUNet.attend)
        return levels, model.apply(variables, attended, method=SAUNet.decode)

    whole = jax.jit(model.apply)
    levels, separate = jax.jit(parts)(variables, image)
    assert [x.shape for x in levels] == [(2, 16, 20, 2), (2, 8, 10, 4), (2, 4, 5, 8)]
    together = whole(variables, image)
    assert together.shape == (2, 16, 20, 1) and float(together.std()) > 0.03
    np.testing.assert_allclose(separate, together, atol=1e-5)
    np.testing.assert_allclose(whole(variables, cut), together[:, :13, :18], atol=1e-5)


@pytest.mark.parametrize(
    ("kernels", "strides", "block", "size", "larger"),
    [
        ("native", ((2, 2),) * 2, (8, 12), (20, 12), (24, 44)),
        ("of XLA", ((2, 2),) * 2, (8, 12), (4, 8), (8, 24)),
        ("native", ((2, 2),), None, (20, 12), (24, 16)),
        ("native", ((1, 2, 2),), (2, 4, 4), (3, 6, 4), (5, 6, 14)),
        ("fused", ((2, 2),) * 2, (8, 12), (20, 12), (24, 44)),
        ("fused", ((1, 2, 2),), (2, 4, 4), (3, 6, 4), (5, 6, 14)),
    ],
)
def test_what_is_behind_an_image_in_its_array_does_not_matter(
    monkeypatch: pytest.MonkeyPatch,
    unwritten_is_nan: None,
    kernels: str,
    strides: tuple[tuple[int, ...], ...],
    block: tuple[int, ...] | None,
    size: tuple[int, ...],
    larger: tuple[int, ...],
) -> None:
    if kernels == "of XLA":
        monkeypatch.setattr(native, "available", lambda: False)
    elif not native.available():
        pytest.skip("there is no C++ compiler")
    model = SAUNet(features=2, strides=strides, block=block, linear=True, output_scale=1.0)
    image = random_image((2, *size, 1))
    variables = random_variables(model, image)
    array = 100 * random_image((2, *larger, 1), seed=2)
    part = (slice(None), *(slice(n) for n in size))
    array = array.at[part].set(image)
    run = model.clone(fused=kernels == "fused").apply
    found = jax.jit(lambda v, x, n: run(v, x, size=n))(variables, array, jnp.asarray(size))
    assert jnp.isfinite(found).all() or kernels == "fused"
    alone = jax.jit(model.apply)(variables, image)
    assert float(alone.std()) > 0.03
    np.testing.assert_allclose(found[part], alone, rtol=1e-6, atol=1e-6)
    unaware = jax.jit(model.apply)(variables, array)
    assert np.abs(unaware[part] - alone).max() > 0.1


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize("attention_kind", ["global", "none", "block"])
@pytest.mark.parametrize(
    ("strides", "sizes"),
    [
        (((2, 2), (2, 2), (2, 2)), [(1, 1), (7, 5), (8, 16), (17, 31), (40, 9)]),
        (((1, 2, 2), (2, 2, 2)), [(1, 1, 1), (3, 7, 5), (4, 8, 8), (9, 17, 30)]),
    ],
)
def test_any_size_keeps_its_size(
    attention_kind: str, strides: tuple[tuple[int, ...], ...], sizes: list[tuple[int, ...]]
) -> None:
    two_voxels = tuple(2 * math.prod(column) for column in zip(*strides, strict=True))
    block = {"global": None, "none": (), "block": two_voxels}[attention_kind]
    model = SAUNet(features=2, strides=strides, block=block)
    for size in sizes:
        image = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        out, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
        assert out.shape == (2, *size, 1) and out.dtype == jnp.float32


def test_an_attention_block_off_the_pooling_grid_is_refused() -> None:
    model = SAUNet(features=2, strides=((2, 2),) * 2, block=(8, 6))
    with pytest.raises(ValueError, match=r"\(8, 6\) is not a multiple of stride \(4, 4\)"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))


@pytest.mark.parametrize(
    ("strides", "expected", "on_coarsest"),
    [
        (((2, 2), (2, 2), (2, 2)), (31, 31), (30, 30)),
        (((1, 2, 2), (2, 2, 2)), (8, 14, 14), (8, 14, 14)),
        (((3, 1),), (8, 4), (8, 4)),
    ],
)
def test_the_radii_are_how_far_a_voxel_acts(
    monkeypatch: pytest.MonkeyPatch,
    strides: tuple[tuple[int, ...], ...],
    expected: tuple[int, ...],
    on_coarsest: tuple[int, ...],
) -> None:
    """With positive weights nothing cancels: whatever depends on a voxel is not zero."""
    # In the mixed rows of the C++ kernels something does, and leaves a rounding error.
    monkeypatch.setattr(native, "available", lambda: False)
    assert tile_radius(strides) == expected and encoder_radius(strides) == on_coarsest
    ndim = len(expected)
    model = SAUNet(features=1, strides=strides, block=(), output_scale=1.0)
    total = [math.prod(column) for column in zip(*strides, strict=True)]
    constants = {"scale": 1.0, "var": 1.0, "bias": 0.0, "mean": 0.0}

    def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, constants.get(name, 3.0 / math.prod(shape[:-1])))

    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *total, 1)))
    variables = variables_like(shapes, fill)

    @jax.jit
    def run(images: np.ndarray) -> Any:
        coarsest: Any
        *finer, coarsest = model.apply(variables, images, method=SAUNet.encode)
        given = (*finer, jnp.zeros_like(coarsest))
        return coarsest, model.apply(variables, given, method=SAUNet.decode)

    for axis in range(ndim):
        # Planes of ones, one image for each place that a plane can have on the grid.
        step = total[axis]
        middle = math.ceil((expected[axis] + 1) / step) * step
        size = [total[a] for a in range(ndim)]
        size[axis] = 2 * middle + step
        images = np.zeros((step, *size, 1), np.float32)
        for i in range(step):
            images[(i, *[slice(None)] * axis, middle + i)] = 1
        other_axes = tuple(a + 1 for a in range(ndim + 1) if a != axis)
        coarsest, found = ((np.asarray(x) != 0).any(axis=other_axes) for x in run(images))
        reached, reached_coarsest = [], []
        for i in range(step):
            place = middle + i
            starts = step * np.flatnonzero(coarsest[i])
            reached_coarsest += [*(starts - place), *(place - (starts + step - 1))]
            reached += list(np.abs(np.flatnonzero(found[i]) - place))
        assert max(reached_coarsest) == on_coarsest[axis]
        assert max(*reached, *reached_coarsest) == expected[axis]


def test_the_papers_network_has_its_shapes_and_count() -> None:
    config = default_config()
    config.model.features = 32
    config.train.crop = (224, 224)
    image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(create_model(config).init, jax.random.key(0), image)
    params = variables["params"]
    channels = [3, 32, 64, 128, 256]
    for i in range(4):
        level = params["encoder"][f"level_{i}"]
        assert level["conv_0"]["kernel"].shape == (3, 3, channels[i], channels[i + 1])
        assert level["conv_1"]["kernel"].shape == (3, 3, channels[i + 1], channels[i + 1])
    assert params["decoder"]["up_0"]["kernel"].shape == (2, 2, 64, 32)
    assert params["decoder"]["level_0"]["conv_0"]["kernel"].shape == (3, 3, 64, 32)
    assert params["decoder"]["head"]["kernel"].shape == (1, 1, 32, 1)

    def convolution(window: int, inputs: int, outputs: int) -> int:
        return window * inputs * outputs + outputs

    count = 0
    for inputs, outputs in zip(channels, channels[1:], strict=False):
        count += convolution(9, inputs, outputs) + convolution(9, outputs, outputs) + 4 * outputs
    count += 4 * convolution(1, 256, 256) + 2 * 256
    for outputs in (128, 64, 32):
        count += convolution(4, 2 * outputs, outputs) + 2 * outputs
        count += convolution(9, 2 * outputs, outputs) + convolution(9, outputs, outputs)
        count += 4 * outputs
    count += convolution(1, 32, 1)
    assert sum(x.size for x in jax.tree.leaves(params)) == count
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_bfloat16_computes_but_does_not_store() -> None:
    half = SAUNet(features=4, strides=((2, 2),), block=(8, 8), output_scale=1.0, dtype=jnp.bfloat16)
    full = half.clone(dtype=jnp.float32)
    image = random_image((1, 15, 16, 1))
    variables = random_variables(half, image)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    rough, exact = (jax.jit(model.apply)(variables, image) for model in (half, full))
    assert rough.dtype == jnp.float32
    error = float(jnp.abs(rough - exact).max() / exact.std())
    assert 1e-5 < error < 0.3


@pytest.mark.parametrize("kernel", ["inverse_distance", "mask"])
def test_a_mask_model_gives_unscaled_logits(kernel: str) -> None:
    config = default_config()
    config.target.kernel = kernel
    model = create_model(config)
    is_mask = kernel == "mask"
    assert model.linear == is_mask
    assert model.output_scale == (1.0 if is_mask else config.target.scale)
    assert model.head_bias == (0.0 if is_mask else config.model.head_bias)


def test_the_count_head_is_a_second_map_that_may_be_negative() -> None:
    config = small_config(features=2, size=16)
    image = random_image((1, 16, 16, 1))
    plain = create_model(config)
    config.target.count_head = True
    counting = create_model(config)
    made = [jax.jit(m.init)(jax.random.key(3), image) for m in (plain, counting)]
    # Rows of an ablation start from the same weights.
    decoder = made[1]["params"]["decoder"]
    head = decoder.pop("count_head")
    jax.tree.map(np.testing.assert_array_equal, made[0], made[1])

    def with_bias(bias: float) -> Array:
        decoder["count_head"] = {**head, "bias": head["bias"] + bias}
        return jax.jit(counting.apply)(made[1], image)

    zero, lower = with_bias(0.0), with_bias(-5.0)
    assert zero.shape == (1, 16, 16, 2) and zero.dtype == jnp.float32
    np.testing.assert_allclose(zero[..., :1], jax.jit(plain.apply)(made[0], image), atol=1e-6)
    np.testing.assert_array_equal(zero[..., 0], lower[..., 0])
    scale = config.target.scale * 2 * math.pi * config.target.count_sigma**2
    np.testing.assert_allclose(zero[..., 1] - lower[..., 1], 5 / scale, rtol=1e-3)
    assert (lower[..., 1] < 0).any()


@pytest.mark.parametrize(("ndim", "symmetry"), [(2, "square"), (3, "mirror"), (3, "square")])
def test_symmetric_kernels_map_a_mirrored_image_to_the_mirrored_map(
    ndim: int, symmetry: str
) -> None:
    config = small_config(features=2, size=16)
    config.data.ndim, config.train.crop = ndim, (16,) * ndim
    config.model.symmetry, config.target.count_head = symmetry, True
    config.target.scale = 1.0
    config.model.levels, config.model.strides = 3, ((1, 2, 2), (2, 2, 2)) if ndim == 3 else ()
    if ndim == 2:
        config.model.levels = 4
    model = create_model(config)
    image = random_image((1, *(32,) * ndim, 1))
    made = jax.jit(model.init)(jax.random.key(3), image)
    apply = jax.jit(model.apply)
    maps = np.asarray(apply(made, image))
    assert maps.std() > 1e-3
    for axis in range(1, ndim + 1):
        mirrored = np.asarray(apply(made, jnp.flip(image, axis)))
        assert np.abs(mirrored - maps).max() > 1e-3
        np.testing.assert_allclose(mirrored, np.flip(maps, axis), atol=2e-5)
    turned = np.asarray(apply(made, jnp.swapaxes(image, -2, -3)))
    same = np.allclose(turned, np.swapaxes(maps, -2, -3), atol=2e-5)
    assert same == (symmetry == "square")


@pytest.mark.parametrize("strides", [((2, 4), (2, 2)), ((1, 2, 2), (2, 2, 2))], ids=str)
def test_a_trained_network_is_computed_in_fewer_passes(strides: Sequence[Sequence[int]]) -> None:
    if not native.available():
        pytest.skip("there is no C++ compiler")
    model = SAUNet(features=3, strides=strides, block=(), linear=True, output_scale=1.0)
    image = random_image((2, *(8 * stride for stride in strides[0]), 2))
    made = random_variables(model, image)
    fused = model.clone(fused=True)

    def passes(model: SAUNet) -> int:
        return str(jax.make_jaxpr(model.apply)(made, image)).count(" max ")

    assert passes(fused) < passes(model)
    expected = jax.jit(model.apply)(made, image)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(jax.jit(fused.apply)(made, image), expected, atol=1e-5)
    # A training step is what it was.
    train = jax.jit(functools.partial(fused.apply, train=True, mutable="batch_stats"))
    same = jax.jit(functools.partial(model.apply, train=True, mutable="batch_stats"))
    np.testing.assert_array_equal(train(made, image)[0], same(made, image)[0])


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_counter_on_a_branch_is_apart_from_the_locations(ndim: int) -> None:
    config = small_config(features=2, size=16)
    config.train.crop = (16,) * ndim
    config.data.ndim = ndim
    if ndim == 3:
        config.model.levels, config.model.strides = 3, ((1, 2, 2), (2, 2, 2))
    config.target.count_head, config.model.counter = True, "branch"
    model = create_model(config)
    image = random_image((1, *config.train.crop, 1))
    made = jax.jit(model.init)(jax.random.key(3), image)
    maps = jax.jit(model.apply)(made, image)
    assert maps.shape == (*image.shape[:-1], 2)
    # One value for what is one voxel of the second level.
    first = maps[..., 1][(0, *(slice(None, None, s) for s in model.strides[0]))]
    for axis, stride in enumerate(model.strides[0]):
        first = jnp.repeat(first, stride, axis)
    np.testing.assert_array_equal(maps[0, ..., 1], first)
    # What the last level does is nothing to the density, and the branch nothing to the map.
    decoder = made["params"]["decoder"]
    for name, other, same in (("level_0", 0, 1), ("count_conv", 1, 0)):
        params = {
            **made["params"],
            "decoder": {**decoder, name: jax.tree.map(jnp.zeros_like, decoder[name])},
        }
        changed = jax.jit(model.apply)({**made, "params": params}, image)
        np.testing.assert_array_equal(changed[..., same], maps[..., same])
        assert np.abs(changed[..., other] - maps[..., other]).max() > 0


@pytest.mark.parametrize(
    ("attention_kind", "block"), [("block", (128, 128)), ("global", None), ("none", ())]
)
def test_attention_of_a_config(attention_kind: str, block: tuple[int, ...] | None) -> None:
    config = default_config()
    config.model.attention = attention_kind
    assert create_model(config).block == block


def test_global_attention_sees_the_whole_image_and_block_attention_its_block() -> None:
    image = random_image((1, 32, 8, 1))
    changed = image.at[0, 30, 4, 0].add(5.0)
    models = {
        name: SAUNet(features=2, strides=((2, 2),), block=block, output_scale=1.0)
        for name, block in (("global", None), ("block", (8, 8)))
    }
    variables = random_variables(models["global"], image)
    moved = {}
    for name, model in models.items():
        maps = jax.jit(model.apply)(variables, jnp.concatenate([image, changed]))
        moved[name] = float(jnp.abs(maps[0, :8] - maps[1, :8]).max())
    assert moved["block"] == 0 and moved["global"] > 1e-3


def test_rematerialisation_changes_no_parameter_and_no_gradient() -> None:
    config = small_config(features=2, size=16)
    image = random_image((2, 16, 16, 1))
    variables = random_variables(create_model(config), image)

    def gradients(remat: bool) -> tuple[Any, Any]:
        config.model.remat = remat
        model = create_model(config)

        @jax.jit
        def run(params: Any) -> tuple[Any, Any]:
            def loss(params: Any) -> tuple[Array, Any]:
                given = {**variables, "params": params}
                found, new = model.apply(given, image, train=True, mutable=["batch_stats"])
                return jnp.mean(jnp.square(found)), new

            return jax.grad(loss, has_aux=True)(params)

        text = run.lower(variables["params"]).as_text()
        assert ("optimization_barrier" in text) == remat
        return run(variables["params"])

    kept, again = gradients(False), gradients(True)
    for a, b in zip(jax.tree.leaves(kept), jax.tree.leaves(again), strict=True):
        scale = max(float(jnp.abs(a).max()), 1e-3)
        np.testing.assert_allclose(a, b, atol=1e-5 * scale)


def test_in_bfloat16_the_map_and_the_parameters_stay_float32() -> None:
    config = small_config(features=4, size=32)
    image = random_image((1, 32, 32, 1))
    model = create_model(config)
    assert model.dtype == jnp.float32, "auto, on a CPU"
    variables = random_variables(model, image)
    config.model.dtype = "bfloat16"
    coarse = create_model(config)
    made = jax.eval_shape(coarse.init, jax.random.key(0), image)
    assert {x.dtype for x in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    levels = jax.eval_shape(lambda: coarse.apply(variables, image, method=SAUNet.encode))
    assert {x.dtype for x in levels} == {jnp.dtype("bfloat16")}
    exact, rounded = (np.asarray(m.apply(variables, image)) for m in (model, coarse))
    assert rounded.dtype == np.float32
    assert 0 < np.abs(rounded - exact).max() < 0.1 * exact.max()
    # A rounded map would have few values.
    assert len(np.unique(rounded[rounded > 0])) > 0.9 * np.count_nonzero(rounded)
