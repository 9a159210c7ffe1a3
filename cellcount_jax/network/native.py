"""Convolutions in C++ for XLA's CPU backend, whose own are slow in 3D and in their gradients.

For a trained network there are upsampling, pooling and parts of levels besides: they, and what ends
a convolution with `finish`, write nothing outside of the image, where memory may hold NaN. So a
trained network does not run with JAX_DEBUG_NANS.

`cpp/kernels.cc` is compiled for the processor it runs on when it is first needed, which takes
seconds, and kept in the user's cache folder. Where there is no C++ compiler (`$CXX`, c++, g++,
clang++, or that of the package ziglang), or with CELLCOUNT_NATIVE=0 in the environment,
`cellcount_jax.network.convolutions` computes the same with XLA alone.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
from absl import logging
from jax import Array

from cellcount_jax.cache import cache_folder
from cellcount_jax.errors import how_to_install, in_words

_SOURCES = Path(__file__).with_name("cpp")
_TARGETS = ("convolve", "cut", "max_pool", "upsample", "weight_gradient")
_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
# A DLL would not find those of a compiler.
_OF_SYSTEM = ("-static",) if sys.platform == "win32" else ("-fPIC",)
_FLAGS = ("-std=c++17", "-O3", *_OF_SYSTEM, "-shared", "-w")
_TIMEOUT_S = 300
_SLOW = "convolutions on the CPU are 2 to 3 times slower than they could be"


class Finish(NamedTuple):
    """What becomes of the sums: max(sum + bias, 0) * scale + shift, `(out,)` each."""

    bias: Array
    scale: Array
    shift: Array


class Part(NamedTuple):
    """A part of a level.

    Attributes:
      shape: its size.
      start: `(D,)` int32, where it begins; it lies within the level.
      there: `(2, D)` int32, the voxels [begin, end) of it that are wanted. The others take no
        time, and can be anything, NaN too.
    """

    shape: tuple[int, ...]
    start: Array
    there: Array

    def corners(self) -> Array:
        """`(3, D)` int32 of the part and of what is wanted."""
        return jnp.concatenate([self.start[None], self.there])


def convolve(
    x: Array,
    kernel: Array,
    *,
    more: Array | None = None,
    size: Array | None = None,
    finish: Finish | None = None,
    before: Array | None = None,
    more_before: Array | None = None,
    planes: Array | None = None,
) -> Array:
    """Convolution with stride 1 and zero padding to the same size; `available()` must be true.

    An image may pass a few planes at a time, with those `before` them: then plane j of the result
    is what the window, kd planes deep, makes of planes j ... j + kd - 1 of the sequence before, x.
    Where the middle one of these is not there, the result is as behind the image.

    Args:
      x: `(batch, depth, height, width, in)` float32.
      kernel: `(*window, in, out)` float32, odd window of three axes.
      more: `(batch, depth, height, width, in)` float32, further input channels, after those of x.
      size: `(3,)` int32, of the images, from the beginning of x: what is behind them does not
        count, takes no time, and is 0 in the result, or anything, NaN too, with `finish`. None =
        all of x.
      finish: what becomes of the sums. None = they are the result.
      before: `(batch, p, height, width, in)` float32, planes that come before those of x,
        p >= kd - 1; with more than that the last planes of x are not seen. `size` then fills
        the depth. None = x are all planes.
      more_before: `(batch, q, height, width, in)` float32, q >= kd - 1, the same for `more`.
      planes: `(2,)` int32, with `before`: the planes [begin, end) of the sequences are there, any
        others count as zeros. Both may lie outside of the sequences.

    Returns:
      `(batch, depth, height, width, out)` float32.
    """
    outputs = kernel.shape[-1]
    size = jnp.asarray(x.shape[1:-1], jnp.int32) if size is None else size
    more = jnp.zeros((*x.shape[:-1], 0), jnp.float32) if more is None else more
    before = jnp.zeros((0,) * 5, jnp.float32) if before is None else before
    more_before = before[..., :0] if more_before is None else more_before
    planes = jnp.zeros(0, jnp.int32) if planes is None else planes
    last = jnp.zeros((0, outputs), jnp.float32) if finish is None else jnp.stack(finish)
    operands = (x, more, before, more_before, kernel, last, size, planes)
    return _call("convolve", (*x.shape[:-1], outputs), *operands)


def upsample(x: Array, kernel: Array, finish: Finish, part: Part) -> Array:
    """Transposed convolution whose stride is its window; `available()` must be true.

        y[s q + t] = finish(sum over c of x[q, c] kernel[t, c])   for the stride s, 0 <= t < s

    Args:
      x: `(batch, depth, height, width, in)` float32.
      kernel: `(*stride, in, out)` float32, three strides.
      finish: what becomes of the sums.
      part: of y, that is computed, D = 3.

    Returns:
      `(batch, *part.shape, out)` float32.
    """
    stride = kernel.shape[:3]
    assert all(n <= k * s for n, k, s in zip(part.shape, x.shape[1:-1], stride, strict=True))
    operands = x, kernel.swapaxes(2, 3), jnp.stack(finish), part.corners()
    return _call("upsample", (x.shape[0], *part.shape, kernel.shape[-1]), *operands)


def cut(x: Array, part: Part) -> Array:
    """A part, D = 3, of an array `(batch, depth, height, width, channels)` float32."""
    assert all(n <= k for n, k in zip(part.shape, x.shape[1:-1], strict=True))
    return _call("cut", (x.shape[0], *part.shape, x.shape[-1]), x, part.corners())


def max_pool(x: Array, pooled: Part) -> Array:
    """The highest of each block of `(batch, depth, height, width, channels)` float32.

    `pooled` is all of the result, whose sizes divide those of x.
    """
    assert all(k % n == 0 for n, k in zip(pooled.shape, x.shape[1:-1], strict=True))
    return _call("max_pool", (x.shape[0], *pooled.shape, x.shape[-1]), x, pooled.corners())


def weight_gradient(x: Array, dy: Array, window: tuple[int, ...]) -> Array:
    """The gradient of `convolve` in its kernel.

    Args:
      x: `(batch, depth, height, width, in)` float32, what was convolved.
      dy: `(batch, depth, height, width, out)` float32, gradient in the result.
      window: of the kernel, three odd sizes.

    Returns:
      `(*window, in, out)` float32, the same bits on any number of threads.
    """
    return _call("weight_gradient", (*window, x.shape[-1], dy.shape[-1]), x, dy)


def available() -> bool:
    """Whether the kernels can be used; compiles them the first time."""
    return _prefix() is not None


def _call(name: str, shape: tuple[int, ...], *operands: Array) -> Array:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.ffi.ffi_call(f"{_prefix()}_{name}", result, vmap_method="sequential")(*operands)


@functools.cache
def _prefix() -> str | None:
    """Loads the library, and names its functions after it: None where it cannot be had."""
    if os.environ.get("CELLCOUNT_NATIVE", "1") == "0":
        return None
    compiler = _compiler()
    if compiler is None:
        logging.warning(
            "%s: there is no C++ compiler; install g++ or clang, or %s",
            _SLOW,
            how_to_install("native"),
        )
        return None
    try:
        library = _build(compiler)
        loaded = ctypes.CDLL(str(library))
        functions = {name: getattr(loaded, name) for name in _TARGETS}
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        reason = getattr(error, "stderr", None) or in_words(error)
        logging.warning("%s: %s could not compile them: %s", _SLOW, compiler[0], reason.strip())
        return None
    for name, function in functions.items():
        handler = jax.ffi.pycapsule(function)
        # The hash is part of the name: a compiled program that another build of the library
        # belongs to, in JAX's compilation cache, is not taken for ours.
        jax.ffi.register_ffi_target(f"{library.stem}_{name}", handler, platform="cpu")
    return library.stem


def _compiler() -> list[str] | None:
    """The command of a C++ compiler."""
    if os.environ.get("CXX"):
        return shlex.split(os.environ["CXX"])
    for name in ("c++", "g++", "clang++"):
        path = shutil.which(name)
        if path:
            return [path]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "c++"]
    return None


def _build(compiler: list[str]) -> Path:
    """The library in the user's cache folder; compiles it if it is not there yet.

    Raises:
      OSError, subprocess.SubprocessError: it cannot be compiled or written.
    """
    arm = platform.machine().lower() in ("arm64", "aarch64")
    command = [*compiler, *_FLAGS, "-mcpu=native" if arm else "-march=native"]
    sources = [path.read_text("utf-8") for path in sorted(_SOURCES.iterdir())]
    parts = [*sources, jaxlib.__version__, *command]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    library = cache_folder() / f"cellcount_{digest}{_SUFFIX}"
    if library.exists():
        return library
    logging.info("compiling the CPU convolutions, once")
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        # Written whole or not at all: another process may look for it.
        made = Path(folder) / library.name
        command += ["-I", jax.ffi.include_dir(), "-o", str(made), str(_SOURCES / "kernels.cc")]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
        try:
            os.replace(made, library)
        except PermissionError:  # on Windows another process has loaded it meanwhile
            if not library.exists():
                raise
    return library
