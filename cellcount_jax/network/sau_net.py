"""SAU-Net: a U-Net with self-attention at its bottleneck, in 2D and 3D.

`SAUNet` is an `Encoder`, a `SelfAttention` on the coarsest level and a `Decoder`, each to
be called alone (`encode`, `attend`, `decode`), so that noise can be put on the features
between them and two decoders can share one encoder pass. Images are `(batch, *spatial,
channels)`; the number of spatial axes is that of `strides`.

Source: Guo et al., SAU-Net, 2021, with the details of the paper's authors' code: a level
is twice convolution, ReLU, norm, in this order. Ours: batch norm and attention within fixed
blocks, so that a large image can be predicted in tiles with the same result; kernels that are
their own mirror images, by option.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn
from jax import Array

from cellcount_jax import config as settings
from cellcount_jax.network.attention import SelfAttention
from cellcount_jax.network.convolutions import can_fuse
from cellcount_jax.network.passing import Passing
from cellcount_jax.network.unet import Decoder, Encoder, Levels, Parts, pooled


class SAUNet(nn.Module):
    """Image to maps, `(batch, *spatial, channels)` to `(batch, *spatial, 1 or 2)`, any size.

    With a `size`, `(D,)` int32, which divides by the stride, the images are that large, from the
    beginning of larger arrays: so images of many sizes are computed by one program. Their maps are
    as without what is behind them, but with norm 'instance'; behind them maps and levels mean
    nothing, and may be NaN.

    Attributes:
      features: channels of the finest level, doubling per level.
      strides: pooling per level and axis; one level more than entries.
      norm: 'batch' or 'instance'.
      norm_momentum: of the running statistics.
      block: size of the attention blocks in image voxels; None = global, () = no attention.
      dropout: rate on the attention weights.
      linear: output logits instead of a non-negative map.
      head_bias: initial bias of the last convolution.
      output_scale: the map is divided by this.
      count_scale: a second map, the cells' density, is divided by this; 0 = there is none.
      count_branch: whether it comes from a branch of its own, see `Decoder`.
      symmetry: of the kernels, see `convolutions.symmetric`. With another than 'none' the map of a
        mirrored image is the mirrored map, where pooling and blocks begin at its ends alike.
      axis_name: the mapped axis over which batch norm averages while training.
      dtype: of the computation; parameters, norms' statistics and the head stay float32.
      remat: whether training computes the inside of a level again for its gradient, for less
        memory and more time on GPUs and TPUs; on CPUs memory stays as it is.
      fused: whether it is computed by `native`, ReLU and norm in the same pass: for a network that
        is not trained any more, where `can_fuse` allows it.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from cellcount_jax import SAUNet
      >>> network = SAUNet(features=4, strides=((2, 2),))
      >>> image = jnp.zeros((1, 32, 48, 1))
      >>> map, variables = jax.jit(network.init_with_output)(jax.random.key(0), image)
      >>> map.shape, sorted(variables)
      ((1, 32, 48, 1), ['batch_stats', 'params'])
    """

    features: int = 32
    strides: Sequence[Sequence[int]] = ((2, 2),) * 3
    norm: str = "batch"
    norm_momentum: float = 0.95
    block: Sequence[int] | None = None
    dropout: float = 0.3
    linear: bool = False
    head_bias: float = 1.0
    output_scale: float = 100.0
    count_scale: float = 0.0
    count_branch: bool = False
    symmetry: str = "none"
    axis_name: str | None = None
    dtype: Any = jnp.float32
    remat: bool = False
    fused: bool = False

    def setup(self) -> None:
        norm = {
            "kind": self.norm,
            "momentum": self.norm_momentum,
            "axis_name": self.axis_name,
            "dtype": self.dtype,
        }
        conv = {"dtype": self.dtype, "symmetry": self.symmetry}
        self.encoder = Encoder(self.features, self.strides, norm, conv, self.remat, self.fused)
        if self.block != ():
            block = None if self.block is None else _divide(self.block, self._total_stride())
            self.attention = SelfAttention(block, self.dropout, norm, self.dtype)
        self.decoder = Decoder(
            strides=self.strides,
            norm=norm,
            conv=conv,
            remat=self.remat,
            fused=self.fused,
            linear=self.linear,
            head_bias=self.head_bias,
            output_scale=self.output_scale,
            count_scale=self.count_scale,
            count_branch=self.count_branch,
        )

    def encode(
        self,
        x: Array,
        *,
        train: bool = False,
        size: Array | None = None,
        passing: Passing | None = None,
    ) -> Levels:
        """The encoder's levels, finest first; the spatial sizes must divide by the stride."""
        return self.encoder(x, train=train, size=size, passing=passing)

    def attend(
        self,
        levels: Levels,
        *,
        train: bool = False,
        keys: Array | None = None,
        size: Array | None = None,
        origin: Array | None = None,
        passing: Passing | None = None,
    ) -> Levels:
        """Self-attention on the coarsest level; `keys` `(batch,)` switch dropout on.

        Of a part of that level `origin` `(D,)` says where it begins, on the grid of the blocks.
        """
        if self.block == ():
            return levels
        stride = self._total_stride()
        if passing is not None:
            passing = passing.pooled(stride[0])
        attended = self.attention(
            levels[-1],
            train=train,
            keys=keys,
            size=pooled(size, stride),
            origin=origin,
            passing=passing,
        )
        return (*levels[:-1], attended)

    def decode(
        self,
        levels: Levels,
        *,
        train: bool = False,
        size: Array | None = None,
        parts: Parts | None = None,
        passing: Passing | None = None,
    ) -> Array:
        """The maps from attended levels, of all or a part of the image; see `Decoder`."""
        return self.decoder(levels, train=train, size=size, parts=parts, passing=passing)

    def __call__(
        self,
        x: Array,
        *,
        train: bool = False,
        keys: Array | None = None,
        size: Array | None = None,
    ) -> Array:
        """The maps of an image of any size: padded with zeros at the far ends, then cut."""
        spatial = x.shape[1:-1]
        ends = [-n % s for n, s in zip(spatial, self._total_stride(), strict=True)]
        x = jnp.pad(x, ((0, 0), *((0, e) for e in ends), (0, 0)))
        levels = self.encode(x, train=train, size=size)
        levels = self.attend(levels, train=train, keys=keys, size=size)
        full = self.decode(levels, train=train, size=size)
        return full[(slice(None), *(slice(n) for n in spatial))]

    def _total_stride(self) -> tuple[int, ...]:
        return tuple(math.prod(column) for column in zip(*self.strides, strict=True))


def create_model(
    config: ml_collections.ConfigDict, *, axis_name: str | None = None, trained: bool = False
) -> SAUNet:
    """The network that a config describes; of a trained one the passes are fused that can be."""
    c = config.model
    dtype = _computation_dtype(c.dtype)
    blocks = {"block": tuple(config.train.crop), "global": None, "none": ()}
    return SAUNet(
        features=c.features,
        strides=settings.strides(config),
        norm=c.norm,
        norm_momentum=c.norm_momentum,
        block=blocks[c.attention],
        dropout=c.dropout,
        linear=config.target.kernel == "mask",
        head_bias=0.0 if config.target.kernel == "mask" else c.head_bias,
        output_scale=1.0 if config.target.kernel == "mask" else config.target.scale,
        count_scale=settings.count_scale(config) if config.target.count_head else 0.0,
        count_branch=c.counter == "branch",
        symmetry=c.symmetry,
        axis_name=axis_name,
        dtype=dtype,
        remat=c.remat,
        fused=trained and c.norm == "batch" and can_fuse(dtype),
    )


def initial_variables(
    key: Array, config: ml_collections.ConfigDict, *, channels: int, axis_name: str | None = None
) -> Any:
    """Initial weights and running statistics of the network that a config describes.

    Args:
      key: random key of the weights.
      config: the experiment.
      channels: of the images.
      axis_name: the mapped axis that batch norm averages over.

    Returns:
      `params` and `batch_stats`, float32, or float64 for a model that computes in it.
    """
    model = create_model(config, axis_name=axis_name)
    variables = model.init(key, jnp.zeros((1, *config.train.crop, channels)))
    # Flax makes them float32; a float64 model needs them in float64, statistics included.
    dtype = jnp.promote_types(model.dtype, jnp.float32)
    variables = jax.tree.map(lambda x: x.astype(dtype), variables)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def _computation_dtype(name: str) -> Any:
    """The type of a setting; 'auto' is what the accelerator is made for."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def tile_radius(strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """How far around a region, in voxels per axis, the image acts on it by convolutions.

    On its part of the coarsest level, if it lies on the grid of that level; and on its map
    where the coarsest level, which attention has mixed, is given. Two 3-wide convolutions reach
    2 voxels of their level, in the encoder and in the decoder; pooling and its inverse reach to
    the ends of their windows.
    """
    radii = []
    for column, on_coarsest in zip(
        zip(*strides, strict=True), encoder_radius(strides), strict=True
    ):
        finer = [math.prod(column[:i]) for i in range(len(column))]
        radii.append(max(on_coarsest, 4 * sum(finer) + finer[-1] - 1))
    return tuple(radii)


def encoder_radius(strides: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The same of a region's part of the coarsest level alone."""
    columns = zip(*strides, strict=True)
    return tuple(2 * sum(math.prod(c[:i]) for i in range(len(c) + 1)) for c in columns)


def decoder_reach(config: ml_collections.ConfigDict) -> int:
    """How many voxels of a level around a part the decoder's convolutions on it see."""
    branch_on_finest = config.model.counter == "branch" and len(settings.strides(config)) == 1
    return 2 + branch_on_finest


def _divide(block: Sequence[int], stride: Sequence[int]) -> tuple[int, ...]:
    if any(b % s for b, s in zip(block, stride, strict=True)):
        raise ValueError(f"attention block {tuple(block)} is not a multiple of stride {stride}")
    return tuple(b // s for b, s in zip(block, stride, strict=True))
