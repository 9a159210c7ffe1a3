"""The same network and training step in PyTorch, for the benchmarks to be compared with.

Not part of the package: `pip install torch==2.13.0` (the CPU build, or one for the GPU). It
computes what `network.sau_net` and `training.step` of cellcount_jax compute, the sharing of the
encoder between teacher and student included; `copy_weights` and
tests/benchmarks/test_benchmarks.py hold it to that.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _of(ndim: int, name: str) -> Any:
    return getattr(nn, f"{name}{ndim}d")


class ConvLevel(nn.Module):
    """Twice: 3-wide convolution, ReLU, batch norm."""

    def __init__(self, ndim: int, inputs: int, features: int, momentum: float) -> None:
        super().__init__()
        conv, norm = _of(ndim, "Conv"), _of(ndim, "BatchNorm")
        self.convs = nn.ModuleList(
            conv(width, features, 3, padding=1) for width in (inputs, features)
        )
        self.norms = nn.ModuleList(norm(features, momentum=momentum) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(F.relu(conv(x)))
        return x


class SAUNet(nn.Module):
    """`cellcount_jax.network.sau_net.SAUNet` with batch norm and one attention block per image."""

    def __init__(
        self,
        strides: Sequence[Sequence[int]],
        *,
        channels: int,
        features: int,
        momentum: float = 0.05,
        dropout: float = 0.3,
        head_bias: float = 1.0,
        output_scale: float = 100.0,
    ) -> None:
        super().__init__()
        ndim = len(strides[0])
        conv, norm = _of(ndim, "Conv"), _of(ndim, "BatchNorm")
        widths = [features * 2**i for i in range(len(strides) + 1)]
        level = functools.partial(ConvLevel, ndim, momentum=momentum)
        self.encoder = nn.ModuleList(map(level, [channels, *widths[:-1]], widths))
        self.pools = nn.ModuleList(_of(ndim, "MaxPool")(tuple(s)) for s in strides)
        self.projections = nn.ModuleDict(
            {name: conv(widths[-1], widths[-1], 1) for name in ("theta", "phi", "g", "out")}
        )
        self.attention_norm = norm(widths[-1], momentum=momentum)
        self.ups = nn.ModuleList(
            _of(ndim, "ConvTranspose")(2 * width, width, tuple(s), stride=tuple(s))
            for width, s in zip(widths, strides, strict=False)
        )
        self.up_norms = nn.ModuleList(norm(width, momentum=momentum) for width in widths[:-1])
        self.decoder = nn.ModuleList(level(2 * width, width) for width in widths[:-1])
        self.head = conv(features, 1, 1)
        nn.init.constant_(self.head.bias, head_bias)
        self.dropout, self.output_scale = dropout, output_scale

    def encode(self, x: Tensor) -> list[Tensor]:
        levels = [self.encoder[0](x)]
        for pool, level in zip(self.pools, self.encoder[1:], strict=True):
            levels.append(level(pool(levels[-1])))
        return levels

    def attend(self, levels: Sequence[Tensor], *, dropout: bool) -> list[Tensor]:
        x = levels[-1]
        theta, phi, g = (self.projections[name](x).flatten(2) for name in ("theta", "phi", "g"))
        weights = torch.softmax(theta.mT @ phi, dim=-1)
        if dropout:
            weights = F.dropout(weights, self.dropout)
        seen = (g @ weights.mT).reshape(x.shape)
        return [*levels[:-1], x + self.attention_norm(F.relu(self.projections["out"](seen)))]

    def decode(self, levels: Sequence[Tensor]) -> Tensor:
        x = levels[-1]
        for i in reversed(range(len(self.ups))):
            x = self.up_norms[i](F.relu(self.ups[i](x)))
            x = self.decoder[i](torch.cat([levels[i], x], dim=1))
        return F.relu(self.head(x).float()) / self.output_scale

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.attend(self.encode(x), dropout=False))


def train_step(
    net: SAUNet,
    optimizer: torch.optim.Optimizer,
    image: Tensor,
    target: Tensor,
    unlabelled: Tensor | None = None,
    *,
    dot_weight: float,
    dropout: bool = True,
) -> Tensor:
    """One step of `cellcount_jax.training.step.train_step`, noise on the last level, ramp-up over.

    Returns:
      The loss.
    """
    count = len(image)
    levels = net.encode(image if unlabelled is None else torch.cat([image, unlabelled]))
    prediction = net.decode(net.attend([x[:count] for x in levels], dropout=dropout))
    error = (1 + dot_weight * target) * (prediction - target) ** 2
    loss = net.output_scale**2 * error.mean()
    if unlabelled is not None:
        others = [x[count:] for x in levels]
        with torch.no_grad():
            teacher = net.decode(net.attend(others, dropout=False))
            weight = _focal_weight(teacher)
        seen = net.attend(others, dropout=dropout)
        noise = torch.rand_like(seen[-1][:1]) * 2
        student = net.decode([*seen[:-1], seen[-1] * noise])
        error = weight * (net.output_scale * (student - teacher)) ** 2
        loss = loss + error.sum() / (weight > 0).sum().clamp(min=1)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.detach()


def _focal_weight(teacher: Tensor, floor: float = 0.1) -> Tensor:
    """`cellcount_jax.training.losses.focal_weight` with its defaults."""
    ndim = teacher.ndim - 2
    pool = F.max_pool2d if ndim == 2 else F.max_pool3d
    conv = F.conv2d if ndim == 2 else F.conv3d
    weight = ((teacher == pool(teacher, 3, 1, 1)) & (teacher > floor)).to(teacher.dtype)
    taps = torch.exp(-0.5 * torch.arange(-2.0, 3.0, device=teacher.device) ** 2)
    for axis in range(ndim):
        shape, padding = [1, 1, *(1,) * ndim], [0] * ndim
        shape[2 + axis], padding[axis] = 5, 2
        weight = conv(weight, (taps / taps.sum()).reshape(shape).to(teacher), padding=padding)
    return weight


def copy_weights(net: SAUNet, params: Mapping[str, Any]) -> None:
    """Gives the network the parameters of a Flax one."""

    def to_torch(kernel: Any) -> Tensor:
        """`(*window, in, out)` to `(out, in, *window)`."""
        return torch.from_numpy(np.array(np.moveaxis(np.asarray(kernel), (-1, -2), (0, 1))))

    def conv(layer: Any, source: Mapping[str, Any]) -> None:
        layer.weight.copy_(to_torch(source["kernel"]))
        layer.bias.copy_(torch.from_numpy(np.array(source["bias"])))

    def up(layer: Any, source: Mapping[str, Any]) -> None:
        # Flax mirrors the window of a transposed convolution, and PyTorch has `in` first.
        kernel = np.asarray(source["kernel"])
        mirrored = np.flip(kernel, tuple(range(kernel.ndim - 2))).swapaxes(-1, -2)
        conv(layer, {**source, "kernel": mirrored})

    def norm(layer: Any, source: Mapping[str, Any]) -> None:
        (inner,) = source.values()
        layer.weight.copy_(torch.from_numpy(np.array(inner["scale"])))
        layer.bias.copy_(torch.from_numpy(np.array(inner["bias"])))

    def level(layer: ConvLevel, source: Mapping[str, Any]) -> None:
        for i in range(2):
            conv(layer.convs[i], source[f"conv_{i}"])
            norm(layer.norms[i], source[f"norm_{i}"])

    with torch.no_grad():
        for i, layer in enumerate(net.encoder):
            level(layer, params["encoder"][f"level_{i}"])
        for name, layer in net.projections.items():
            conv(layer, params["attention"][name])
        norm(net.attention_norm, params["attention"]["norm"])
        decoder = params["decoder"]
        for i, layer in enumerate(net.decoder):
            up(net.ups[i], decoder[f"up_{i}"])
            norm(net.up_norms[i], decoder[f"up_norm_{i}"])
            level(layer, decoder[f"level_{i}"])
        conv(net.head, decoder["head"])
