"""What tests of the network share."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest
from jax import Array

from cellcount_jax.network import native
from cellcount_jax.network.convolutions import inside


@pytest.fixture
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the C++ kernels do not write in a trained network is NaN, not what memory holds."""
    convolve, upsample = native.convolve, native.upsample
    cut, max_pool = native.cut, native.max_pool

    def convolved(x: Array, kernel: Array, **options: Any) -> Array:
        y = convolve(x, kernel, **options)
        if options.get("finish") is None:
            return y
        shape, size, planes = y.shape[1:-1], options.get("size"), options.get("planes")
        written = jnp.ones(shape, bool) if size is None else inside(shape, size)
        if planes is not None:
            number = jnp.arange(shape[0])[:, None, None] + kernel.shape[0] // 2
            written &= (number >= planes[0]) & (number < planes[1])
        return jnp.where(written[None, ..., None], y, jnp.nan)

    def wanted(y: Array, part: native.Part) -> Array:
        # From the first voxel that is wanted on, they are an image of this size.
        first, end = part.there
        written = inside(part.shape, end - first, origin=-first)
        return jnp.where(written[None, ..., None], y, jnp.nan)

    def upsampled(x: Array, kernel: Array, finish: native.Finish, part: native.Part) -> Array:
        return wanted(upsample(x, kernel, finish, part), part)

    monkeypatch.setattr(native, "convolve", convolved)
    monkeypatch.setattr(native, "upsample", upsampled)
    monkeypatch.setattr(native, "cut", lambda x, part: wanted(cut(x, part), part))
    monkeypatch.setattr(native, "max_pool", lambda x, part: wanted(max_pool(x, part), part))
