"""Every form of a convolution against XLA's own, in value and gradient."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import Array

from cellcount_jax.network import convolutions, layers, native

pytestmark = pytest.mark.usefixtures("strict_dtypes", "form")

Operation = Callable[[Array, Array], Array]

CONVOLUTIONS = [
    # batch, spatial, window, in, out
    (2, (9, 11), (3, 3), 4, 5),
    (1, (8, 8), (1, 1), 3, 6),
    (3, (7, 6), (5, 3), 2, 1),
    (2, (1, 5), (3, 3), 3, 2),
    (2, (5, 7, 6), (3, 3, 3), 3, 4),
    (1, (4, 5, 6), (1, 1, 1), 2, 3),
    (2, (4, 6, 5), (1, 3, 3), 3, 2),
    (2, (6, 4, 5), (3, 1, 1), 2, 2),
    (1, (6, 5, 7), (5, 3, 1), 1, 3),
    (2, (1, 4, 3), (3, 3, 3), 2, 2),
]
TRANSPOSED = [
    # batch, spatial, stride, in, out
    (2, (5, 4), (2, 2), 4, 3),
    (1, (3, 6), (1, 2), 2, 5),
    (2, (4, 3), (3, 2), 3, 1),
    (2, (3, 4, 2), (2, 2, 2), 4, 2),
    (1, (5, 3, 4), (1, 2, 2), 3, 4),
    (1, (2, 3, 2), (2, 4, 1), 1, 3),
]


@pytest.fixture(params=["native", "xla"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without the C++ convolutions."""
    if request.param == "xla":
        monkeypatch.setattr(native, "available", lambda: False)
    elif not native.available():
        pytest.skip("there is no C++ compiler")


def numbers(window: tuple[int, ...]) -> tuple[str, str, str]:
    axes = "DHW"[-len(window) :]
    return f"N{axes}C", f"{axes}IO", f"N{axes}C"


def native_convolution(x: Array, kernel: Array) -> Array:
    window = kernel.shape[:-2]
    return jax.lax.conv_general_dilated(
        x, kernel, (1,) * len(window), "SAME", dimension_numbers=numbers(window)
    )


def native_transposed(x: Array, kernel: Array) -> Array:
    stride = kernel.shape[:-2]
    return jax.lax.conv_transpose(x, kernel, stride, "VALID", dimension_numbers=numbers(stride))


def random_arrays(
    batch: int, spatial: tuple[int, ...], window: tuple[int, ...], inputs: int, outputs: int
) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, *spatial, inputs))
    kernel = rng.normal(size=(*window, inputs, outputs))
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


def assert_close(actual: Any, expected: Any) -> None:
    """To 1e-5 of the largest value."""
    scale = float(np.abs(expected).max())
    assert scale > 0 and np.shape(actual) == np.shape(expected)
    np.testing.assert_allclose(actual, expected, atol=1e-5 * scale, rtol=0)


def value_and_gradients(operation: Operation, x: Array, kernel: Array) -> tuple[Array, ...]:
    """The result, and the gradients of a sum of it with different weights."""

    @jax.jit
    def run(x: Array, kernel: Array) -> tuple[Array, ...]:
        y, pullback = jax.vjp(operation, x, kernel)
        cotangent = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        return (y, *pullback(cotangent))

    return run(x, kernel)


@pytest.mark.parametrize("sizes", CONVOLUTIONS, ids=str)
def test_convolution_equals_native(sizes: tuple[Any, ...]) -> None:
    x, kernel = random_arrays(*sizes)
    for actual, expected in zip(
        value_and_gradients(convolutions.convolve, x, kernel),
        value_and_gradients(native_convolution, x, kernel),
        strict=True,
    ):
        assert_close(actual, expected)


@pytest.mark.parametrize("sizes", TRANSPOSED, ids=str)
def test_upsampling_equals_native(sizes: tuple[Any, ...]) -> None:
    x, kernel = random_arrays(*sizes)
    for actual, expected in zip(
        value_and_gradients(convolutions.upsample, x, kernel),
        value_and_gradients(native_transposed, x, kernel),
        strict=True,
    ):
        assert_close(actual, expected)


def repeated(convolve: Operation, upsample: Operation) -> Operation:
    """Gradient steps on a kernel in a compiled loop, as in training."""

    def objective(kernel: Array, x: Array) -> Array:
        stride = (1,) * (kernel.ndim - 4) + (2, 2)
        finer = upsample(x, jnp.ones((*stride, x.shape[-1], x.shape[-1])))
        return jnp.mean(jnp.square(convolve(jnp.tanh(convolve(finer, kernel)), kernel)))

    def run(x: Array, kernel: Array) -> Array:
        def step(kernel: Array, _: None) -> tuple[Array, Array]:
            loss, gradient = jax.value_and_grad(objective)(kernel, x)
            return kernel - 0.01 * gradient, loss

        kernel, history = jax.lax.scan(step, kernel, None, length=3)
        return jnp.concatenate([kernel.ravel(), history])

    return jax.jit(run)


@pytest.mark.parametrize("window", [(3, 3), (3, 3, 3), (1, 1)])
def test_inside_a_loop(window: tuple[int, ...]) -> None:
    x, kernel = random_arrays(2, (3, 4, 5)[-len(window) :], window, 3, 3)
    actual = repeated(convolutions.convolve, convolutions.upsample)(x, kernel)
    assert_close(actual, repeated(native_convolution, native_transposed)(x, kernel))


def test_under_vmap() -> None:
    x, kernel = random_arrays(2, (4, 5, 6), (3, 3, 3), 2, 3)
    kernels = jnp.stack([kernel, -2 * kernel])
    many = jax.vmap(lambda k: value_and_gradients(convolutions.convolve, x, k))(kernels)
    for i, k in enumerate(kernels):
        one = value_and_gradients(native_convolution, x, k)
        for actual, expected in zip(many, one, strict=True):
            assert_close(actual[i], expected)


@pytest.mark.parametrize(
    ("window", "ours", "theirs"),
    [
        ((3, 3), layers.Conv(4, (3, 3)), nn.Conv(4, (3, 3))),
        ((3, 3, 3), layers.Conv(4, (3, 3, 3)), nn.Conv(4, (3, 3, 3))),
        ((1, 1), layers.Conv(4, (1, 1)), nn.Conv(4, (1, 1))),
        (
            (1, 2, 2),
            layers.ConvTranspose(4, (1, 2, 2)),
            nn.ConvTranspose(4, (1, 2, 2), strides=(1, 2, 2)),
        ),
        ((2, 2), layers.ConvTranspose(4, (2, 2)), nn.ConvTranspose(4, (2, 2), strides=(2, 2))),
    ],
    ids=["conv2d", "conv3d", "conv1x1", "up3d", "up2d"],
)
def test_modules_take_the_parameters_of_flax(
    window: tuple[int, ...], ours: nn.Module, theirs: nn.Module
) -> None:
    x, _ = random_arrays(2, (3, 4, 6)[-len(window) :], window, 3, 4)
    key = jax.random.key(0)
    shapes = jax.eval_shape(ours.init, key, x)
    assert shapes == jax.eval_shape(theirs.init, key, x)
    rng = np.random.default_rng(1)
    variables = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes)
    assert_close(jax.jit(ours.apply)(variables, x), jax.jit(theirs.apply)(variables, x))


def test_computation_type_and_parameter_type() -> None:
    x = jnp.ones((1, 4, 4, 3))
    for module in (
        layers.Conv(2, (3, 3), dtype=jnp.bfloat16),
        layers.ConvTranspose(2, (2, 2), dtype=jnp.bfloat16),
    ):
        y, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), x)
        assert y.dtype == jnp.bfloat16
        assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


@pytest.mark.parametrize("window", [(3, 3), (2, 2), (1, 3, 2), (1, 1)])
def test_symmetric_kernels_are_the_mean_of_their_mirror_images(window: tuple[int, ...]) -> None:
    kernel = np.random.default_rng(0).normal(size=(*window, 40, 50)).astype(np.float32)

    found = np.asarray(convolutions.symmetric(jnp.asarray(kernel), "mirror"))

    axes = range(len(window))
    flips = [f for n in range(len(window) + 1) for f in itertools.combinations(axes, n)]
    mean = np.mean([np.flip(kernel, f) for f in flips], axis=0)
    factor = (found * mean).sum() / (mean**2).sum()
    np.testing.assert_allclose(found, factor * mean, atol=1e-5)
    # So large that a layer passes on as much as before.
    assert (found**2).sum() == pytest.approx((kernel**2).sum(), rel=0.1)


def test_square_kernels_stay_as_they_are_where_y_and_x_are_exchanged() -> None:
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3, 4, 5)), jnp.float32)
    mirror, square = (convolutions.symmetric(kernel, name) for name in ("mirror", "square"))
    exchanged = jnp.swapaxes(mirror, 1, 2)
    np.testing.assert_allclose(square, (mirror + exchanged) / 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(convolutions.symmetric(kernel, "none"), kernel)
