"""The C++ convolutions: value and gradient against NumPy's, and how the library is built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from cellcount_jax.network import native

WINDOW = st.sampled_from([1, 3, 5])
SIZES = st.tuples(*[st.integers(1, 9)] * 3)
# Around the widths of vector registers and of the panels made of them.
CHANNELS = st.sampled_from([1, 2, 3, 5, 8, 13, 16, 24, 31, 32, 33, 48, 64])


@pytest.fixture(autouse=True)
def kernels() -> None:
    if not native.available():
        pytest.skip("there is no C++ compiler")


@pytest.fixture
def fresh() -> Iterator[None]:
    """As in a process that has not asked for the library yet."""
    native._prefix.cache_clear()
    yield
    native._prefix.cache_clear()


def shifted(x: np.ndarray, window: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """For each place in the window, what of the zero-padded image it lies on."""
    padded = np.pad(x, ((0, 0), *((n // 2, n // 2) for n in window), (0, 0)))
    for place in np.ndindex(*window):
        cut = tuple(slice(i, i + n) for i, n in zip(place, x.shape[1:-1], strict=True))
        yield place, padded[(slice(None), *cut)]


def difference(actual: Array, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape and actual.dtype == jnp.float32
    return float(np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max())


def check(
    batch: int, spatial: tuple[int, ...], window: tuple[int, ...], inputs: int, outputs: int
) -> None:
    """Against sums over the window, which NumPy takes in float64."""
    rng = np.random.default_rng(0)
    shapes = ((batch, *spatial, inputs), (*window, inputs, outputs), (batch, *spatial, outputs))
    x, kernel, dy = (rng.normal(size=shape).astype(np.float32).astype(float) for shape in shapes)
    expected = sum(part @ kernel[place] for place, part in shifted(x, window))
    gradient = np.empty_like(kernel)
    for place, part in shifted(x, window):
        gradient[place] = part.reshape(-1, inputs).T @ dy.reshape(-1, outputs)
    x32, kernel32, dy32 = (jnp.asarray(a, jnp.float32) for a in (x, kernel, dy))
    assert difference(native.convolve(x32, kernel32), np.asarray(expected)) < 1e-5
    assert difference(native.weight_gradient(x32, dy32, window), gradient) < 1e-5
    # Input channels in two arrays; bias, ReLU and an affine map at the end.
    bias, scale, shift = rng.normal(size=(3, outputs)).astype(np.float32)
    found = native.convolve(
        x32[..., : inputs // 2],
        kernel32,
        more=x32[..., inputs // 2 :],
        finish=native.Finish(*map(jnp.asarray, (bias, scale, shift))),
    )
    assert difference(found, np.maximum(expected + bias, 0) * scale + shift) < 1e-5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), SIZES, st.tuples(WINDOW, WINDOW, WINDOW), CHANNELS, CHANNELS)
def test_equals_the_sums(
    batch: int, spatial: tuple[int, ...], window: tuple[int, ...], inputs: int, outputs: int
) -> None:
    check(batch, spatial, window, inputs, outputs)


@pytest.mark.parametrize(
    ("batch", "spatial", "window", "inputs", "outputs"),
    [
        (2, (1, 200, 70), (1, 3, 3), 32, 16),  # rows in several pieces
        (1, (9, 33, 65), (3, 3, 3), 40, 32),  # channels in several groups
        (2, (1, 3, 3), (1, 3, 3), 256, 512),  # sums too large for slices
        (1, (1, 2, 3000), (1, 3, 3), 70, 4),  # a row larger than the scratch memory
    ],
)
def test_equals_the_sums_at_sizes_that_are_cut(
    batch: int, spatial: tuple[int, ...], window: tuple[int, ...], inputs: int, outputs: int
) -> None:
    check(batch, spatial, window, inputs, outputs)


@pytest.mark.parametrize(
    ("spatial", "size", "window"),
    [
        ((1, 9, 40), (1, 7, 29), (1, 3, 3)),
        ((5, 8, 9), (3, 8, 4), (3, 3, 3)),
        ((4, 6, 7), (4, 6, 7), (3, 1, 5)),
        ((2, 300, 70), (2, 211, 66), (1, 3, 3)),
        ((2, 4, 4), (2, 0, 3), (3, 3, 3)),
    ],
)
@pytest.mark.parametrize("outputs", [8, 16, 24])
def test_an_image_at_the_beginning_of_an_array(
    spatial: tuple[int, ...], size: tuple[int, ...], window: tuple[int, ...], outputs: int
) -> None:
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(*window, 24, outputs)), jnp.float32)
    image = (slice(None), *(slice(n) for n in size))
    x = np.full((2, *spatial, 24), np.nan, np.float32)
    x[image] = rng.normal(size=(2, *size, 24))
    found = np.array(native.convolve(jnp.asarray(x), kernel, size=jnp.asarray(size)))
    np.testing.assert_array_equal(found[image], native.convolve(jnp.asarray(x[image]), kernel))
    fused = native.convolve(
        jnp.asarray(x), kernel, size=jnp.asarray(size), finish=any_finish(outputs)
    )
    alone = native.convolve(jnp.asarray(x[image]), kernel, finish=any_finish(outputs))
    np.testing.assert_array_equal(np.asarray(fused)[image], alone)
    found[image] = 0
    assert not found.any(), "what is behind the image is not 0"


GARBAGE = 1e6


def some(*shape: int, seed: int = 0) -> Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def any_finish(outputs: int) -> native.Finish:
    return native.Finish(*some(3, outputs, seed=9))


@pytest.mark.parametrize("window", [(3, 3, 3), (5, 3, 3), (3, 1, 5), (1, 3, 3)])
@pytest.mark.parametrize("channels", [1, 8, 16])
@pytest.mark.parametrize("fused", [False, True])
def test_an_image_that_passes_a_few_planes_at_a_time(
    window: tuple[int, int, int], channels: int, fused: bool
) -> None:
    past = window[0] - 1
    # What is not of the image is 0 for the whole, and not to be read, or made, where it passes.
    around = ((0, 0), (past, past), (0, 0), (0, 0), (0, 0))
    image, more = (some(2, 24, 9, 13, inputs, seed=inputs) for inputs in (channels, 6))
    kernel = some(*window, channels + (6 if fused else 0), channels)
    finish = any_finish(channels) if fused else None
    padded, more_padded = (jnp.pad(a, around) for a in (image, more))
    whole = np.array(
        native.convolve(padded, kernel, more=more_padded if fused else None, finish=finish)
    )
    whole[:, :past] = whole[:, past + 24 :] = 0
    padded, more_padded = (jnp.pad(a, around, constant_values=GARBAGE) for a in (image, more))
    end = past
    for depth in (1, 2, 18, 3, past):
        begin, end = end, end + depth
        found = native.convolve(
            padded[:, begin:end],
            kernel,
            more=more_padded[:, begin:end] if fused else None,
            finish=finish,
            before=padded[:, begin - past : begin],
            more_before=more_padded[:, begin - past : begin] if fused else None,
            planes=jnp.asarray((2 * past - begin, 2 * past - begin + 24), jnp.int32),
        )
        numbers = np.arange(begin, end) - past // 2
        # Fused, what is not of the image is not written.
        seen = (numbers >= past) & (numbers < past + 24) if fused else slice(None)
        expected = whole[:, numbers]
        np.testing.assert_array_equal(
            np.asarray(found)[:, seen], expected[:, seen], f"planes {begin} to {end}"
        )
    assert end == 24 + 2 * past, "some planes did not pass"


@pytest.mark.parametrize("channels", [1, 8, 16])
@pytest.mark.parametrize("planes", [(-7, 90), (1, 5), (0, 3)])
def test_x_passes_later_than_more(channels: int, planes: tuple[int, int]) -> None:
    kernel = some(3, 3, 3, channels + 3, 8)
    x, more = some(2, 9, 7, 10, channels), some(2, 6, 7, 10, 3, seed=1)
    found = native.convolve(
        x[:, 5:],
        kernel,
        more=more[:, 2:],
        before=x[:, :5],
        more_before=more[:, :2],
        planes=jnp.asarray(planes, jnp.int32),
    )
    both = np.concatenate([x[:, :6], more], -1)
    both[:, : max(planes[0], 0)] = both[:, planes[1] :] = 0
    expected = np.array(native.convolve(jnp.asarray(both), kernel))
    expected[:, : max(planes[0], 0)] = expected[:, planes[1] :] = 0
    np.testing.assert_array_equal(found, expected[:, 1:-1])


@pytest.mark.parametrize("planes", [(0, 0), (4, 1), (-9, -2), (6, 60)])
@pytest.mark.parametrize("channels", [1, 8])
def test_none_of_the_planes_is_there(planes: tuple[int, int], channels: int) -> None:
    x, kernel = some(1, 4, 5, 6, channels), some(3, 3, 3, channels, 8)
    there = jnp.asarray(planes, jnp.int32)
    found = native.convolve(x, kernel, before=x[:, :2] + GARBAGE, planes=there)
    np.testing.assert_array_equal(found, 0)
    # Fused, nothing is written.
    fused = native.convolve(x, kernel, finish=any_finish(8), before=x[:, :2], planes=there)
    assert fused.shape == found.shape


PARTS = [
    # Stride, size of the coarse level, where a part begins, its size, channels.
    ((1, 2, 2), (3, 5, 7), (0, 0, 0), (3, 10, 14), (16, 8)),
    ((2, 2, 2), (3, 5, 40), (1, 3, 5), (4, 7, 70), (48, 24)),
    ((2, 1, 4), (2, 9, 5), (3, 0, 1), (1, 9, 18), (5, 3)),
    ((1, 3, 1), (1, 30, 6), (0, 2, 0), (1, 87, 6), (32, 32)),
    ((1, 2, 2), (1, 1, 1), (0, 1, 1), (1, 1, 1), (1, 1)),
]


def check_parts(
    make: Callable[[native.Part], Array],
    level: np.ndarray,
    start: tuple[int, ...],
    shape: tuple[int, ...],
) -> None:
    """That parts of `(batch, *spatial, channels)` are made, all of them or what is wanted."""
    expected = level[(slice(None), *(slice(i, i + n) for i, n in zip(start, shape, strict=True)))]
    beyond, third = tuple(n + 5 for n in shape), tuple(n // 3 for n in shape)
    wanted = ((0, 0, 0), shape), ((-3, 0, 0), beyond), (third, tuple(n - n // 4 for n in shape))
    for there in wanted:
        corners = (jnp.asarray(a, jnp.int32) for a in (start, there))
        found = np.asarray(make(native.Part(shape, *corners)))
        inner = (slice(None), *(slice(max(a, 0), b) for a, b in zip(*there, strict=True)))
        assert expected[inner].size and found.shape == expected.shape
        np.testing.assert_allclose(found[inner], expected[inner], atol=2e-5)


@pytest.mark.parametrize(("stride", "coarse", "start", "shape", "channels"), PARTS)
def test_parts_of_levels_that_are_upsampled_cut_and_pooled(
    stride: tuple[int, ...],
    coarse: tuple[int, ...],
    start: tuple[int, ...],
    shape: tuple[int, ...],
    channels: tuple[int, int],
) -> None:
    inputs, outputs = channels
    x, kernel = some(2, *coarse, inputs), some(*stride, inputs, outputs, seed=1)
    finish = any_finish(outputs)
    # Every voxel apart, in float64.
    level = np.zeros((2, *(n * s for n, s in zip(coarse, stride, strict=True)), outputs))
    for at in np.ndindex(*level.shape[1:-1]):
        of_coarse, tap = zip(*map(divmod, at, stride), strict=True)
        sums = np.asarray(x, float)[(slice(None), *of_coarse)] @ np.asarray(kernel, float)[tap]
        made = np.maximum(sums + np.asarray(finish.bias), 0) * np.asarray(finish.scale)
        level[(slice(None), *at)] = made + np.asarray(finish.shift)
    check_parts(lambda part: native.upsample(x, kernel, finish, part), level, start, shape)

    fine = some(*level.shape)
    check_parts(lambda part: native.cut(fine, part), np.asarray(fine), start, shape)
    blocks = [size for pair in zip(coarse, stride, strict=True) for size in pair]
    highest = np.asarray(fine).reshape(2, *blocks, -1).max((2, 4, 6))
    check_parts(lambda part: native.max_pool(fine, part), highest, (0, 0, 0), coarse)


def test_nothing_of_an_upsampled_level_is_wanted() -> None:
    x, kernel = some(1, 2, 3, 4, 5), some(1, 2, 2, 5, 8)
    for there in ([(0, 0, 0), (2, 0, 8)], [(2, 0, 0), (9, 9, 9)], [(0, 5, 0), (2, 3, 8)]):
        part = native.Part((2, 6, 8), jnp.zeros(3, jnp.int32), jnp.asarray(there, jnp.int32))
        assert native.upsample(x, kernel, any_finish(8), part).shape == (1, 2, 6, 8, 8)
        assert native.cut(some(1, 2, 6, 8, 3), part).shape == (1, 2, 6, 8, 3)
        assert native.max_pool(some(1, 4, 6, 16, 3), part).shape == (1, 2, 6, 8, 3)


def test_nothing_gives_nothing() -> None:
    x = jnp.zeros((0, 2, 4, 4, 3))
    assert native.convolve(x, jnp.ones((1, 3, 3, 3, 5))).shape == (0, 2, 4, 4, 5)
    gradient = native.weight_gradient(x, jnp.zeros((0, 2, 4, 4, 5)), (1, 3, 3))
    np.testing.assert_array_equal(gradient, np.zeros((1, 3, 3, 3, 5)))


_BITS = """
import hashlib, jax, numpy as np
from cellcount_jax.network import native
x, dy = (jax.random.normal(jax.random.key(i), (2, 5, 40, 50, 24)) for i in range(2))
kernel = jax.random.normal(jax.random.key(2), (3, 3, 3, 24, 24))
made = [native.convolve(x, kernel), native.weight_gradient(x, dy, (3, 3, 3))]
finish, corners = native.Finish(*kernel[0, 0, :, 0]), np.int32([(0, 0, 0), (10, 80, 100)])
part = native.Part((10, 80, 100), corners[0], corners)
made.append(native.upsample(x, kernel[:2, :2, :2], finish, part))
print(*(hashlib.sha256(np.asarray(m).tobytes()).hexdigest() for m in made))
"""


def test_the_same_bits_on_any_number_of_threads() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2 or shutil.which("taskset") is None:
        pytest.skip("needs two processors and taskset")
    found = [
        subprocess.run(
            ["taskset", "-c", ",".join(map(str, cpus)), sys.executable, "-c", _BITS],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for cpus in (allowed[:1], allowed)
    ]
    assert found[0] == found[1] != ""


def test_built_once_and_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = native._compiler()
    assert compiler is not None
    library = native._build(compiler)
    made = library.stat().st_mtime_ns
    assert native._build(compiler) == library
    assert library.stat().st_mtime_ns == made
    assert list(library.parent.iterdir()) == [library], "something was left behind"


def test_switched_off(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLCOUNT_NATIVE", "0")
    assert not native.available()


def test_without_a_compiler(
    fresh: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: None)
    assert not native.available()
    assert "there is no C++ compiler; install g++ or clang, or pip install" in caplog.text


@pytest.mark.parametrize(
    ("compiler", "reason"), [("/no/such/c++", "no such file"), ("false", "returned non-zero")]
)
def test_a_compiler_that_fails(
    fresh: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    compiler: str,
    reason: str,
) -> None:
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not native.available()
    assert f"{compiler} could not compile them: " in caplog.text and reason in caplog.text
    assert not list(tmp_path.rglob("*.so"))


def test_a_cache_folder_that_cannot_be_made(
    fresh: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert not native.available()
    assert "could not compile them" in caplog.text and str(tmp_path / "file") in caplog.text
