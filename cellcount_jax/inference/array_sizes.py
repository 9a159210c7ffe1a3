"""The sizes of the arrays for images in one piece: few, so that few programs are compiled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import ml_collections

from cellcount_jax import config as settings

# The sides of the arrays in which planes are computed, in voxels, in the order in which they are
# tried; those for larger planes are powers of this root of two.
_ARRAYS = (
    *((256, 256), (362, 362), (512, 512), (362, 724), (724, 362), (724, 724)),
    *((1024, 1024), (724, 1448), (1448, 724)),
)
_ROOT_IF_LARGER = 4


def array_shape(config: ml_collections.ConfigDict, shape: Sequence[int]) -> tuple[int, ...]:
    """The size of the array at whose beginning an image in one piece is computed.

    A program is compiled for a size, which takes longer than the computation of a small image, and
    keeps its memory. So planes of up to about a megavoxel are computed in few arrays: of six sizes
    up to 724 voxels. Where a trained network skips what is padded, see `native`, this takes about
    1.1 times as long as in arrays of their own sizes. A larger plane, which takes longer than
    its program, is padded less. The map is as without padding, see `SAUNet`; where it would not be,
    for volumes, which are rarely of many sizes, and where it would exceed
    `config.predict.max_voxels`, only the last stride is filled.

    Args:
      config: of the experiment.
      shape: `(D,)` of the image.

    Returns:
      `(D,)` multiples of the stride.
    """
    stride = settings.total_stride(config)
    least = rounded_up(shape, stride)
    if len(shape) != 2 or config.model.norm != "batch" or config.model.attention == "global":
        return least
    arrays = [rounded_up(sides, stride) for sides in _ARRAYS]
    holding = (sides for sides in arrays if all(n <= k for n, k in zip(least, sides, strict=True)))
    found = next(holding, rounded_up([_power(n) for n in least], stride))
    return found if math.prod(found) <= config.predict.max_voxels else least


def _power(size: int) -> float:
    """The least power of the root that is not below a size."""
    exponent = math.ceil(math.log2(size) * _ROOT_IF_LARGER - 1e-9)
    return max(size, 2.0 ** (exponent / _ROOT_IF_LARGER))


def rounded_up(sizes: Sequence[float], stride: Sequence[int]) -> tuple[int, ...]:
    """Sizes, rounded up to multiples of the stride."""
    return tuple(math.ceil(size / step) * step for size, step in zip(sizes, stride, strict=True))
