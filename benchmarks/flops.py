"""Operations of a training step, counted from the layers' shapes, and what devices can do."""

from __future__ import annotations

import math
from typing import NamedTuple

import ml_collections

from cellcount_jax import config as settings

# Of the built-in images, and of the network in step.py.
CHANNELS = 1

# Dense bfloat16 TFLOP/s of one device, by the start of its device_kind. GPUs: NVIDIA's
# datasheets of H200, H100, GH200, A100, L40S, L40, L4 and HGX B200 (where they state rates with
# sparsity, half of those). TPUs: Google Cloud's pages on each generation, a chip.
PEAK_TFLOPS = {
    "NVIDIA B200": 2250.0,
    "NVIDIA GH200": 989.0,
    "NVIDIA H200": 989.0,
    "NVIDIA H200 NVL": 836.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H100 NVL": 836.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA A100": 312.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA L40": 181.0,
    "NVIDIA L4": 121.0,
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5": 459.0,
    "TPU v5p": 459.0,
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
}


class ForwardFlops(NamedTuple):
    """Floating-point operations of one image's forward pass; a multiply-add counts as two."""

    first: int  # the first convolution, whose input needs no gradient
    encoder: int  # the rest of it
    attention: int
    decoder: int


def forward_flops(config: ml_collections.ConfigDict, *, channels: int) -> ForwardFlops:
    """Counts the products of one crop's forward pass, from the shapes of the layers.

    Norms, activations, pooling, softmax and all else that is done once per element are not
    counted, and windows count as whole at the edges.
    """
    strides = settings.strides(config)
    widths = [config.model.features * 2**i for i in range(len(strides) + 1)]
    grids = [tuple(config.train.crop)]
    for stride in strides:
        grids.append(tuple(size // s for size, s in zip(grids[-1], stride, strict=True)))
    voxels = [math.prod(grid) for grid in grids]
    window = 3 ** len(config.train.crop)

    def level(i: int, inputs: int) -> int:
        return 2 * window * (inputs + widths[i]) * widths[i] * voxels[i]

    first = 2 * window * channels * widths[0] * voxels[0]
    encoder = sum(level(i, width) for i, width in enumerate([channels, *widths[:-1]]))
    attention = 0
    if config.model.attention != "none":
        # A crop is one block: four 1x1 convolutions, the scores, and their sum over g.
        width, tokens = widths[-1], voxels[-1]
        attention = 2 * 4 * width**2 * tokens + 2 * 2 * tokens**2 * width
    decoder = 2 * widths[0] * voxels[0]
    for i, width in enumerate(widths[:-1]):
        decoder += 2 * widths[i + 1] * width * voxels[i] + level(i, 2 * width)
    return ForwardFlops(first, encoder - first, attention, decoder)


def step_flops(config: ml_collections.ConfigDict, *, channels: int = CHANNELS) -> int:
    """Floating-point operations of one training step, as a multiply-add counts as two.

    The encoder sees every image once, teacher and student have their own attention and
    decoder. A backward pass is twice a forward pass, as every product has two gradients; the
    first convolution has one, and the teacher none.
    """
    one = forward_flops(config, channels=channels)
    labelled = config.train.batch_labelled
    unlabelled = config.train.batch_unlabelled if config.consistency.weight > 0 else 0
    # A perturbed image passes the encoder anew.
    on_image = config.consistency.perturbation in settings.IMAGE_PERTURBATIONS
    encoded = labelled + unlabelled * (2 if on_image else 1)
    rest = one.attention + one.decoder
    return (
        encoded * (2 * one.first + 3 * one.encoder)
        + (labelled + unlabelled) * 3 * rest
        + unlabelled * rest
    )


def peak_tflops(device_kind: str) -> float | None:
    """Dense bfloat16 TFLOP/s of a device; None = unknown.

    The longest known name counts that the kind begins with, word by word; a slice of a GPU (MIG)
    has the name of the whole one.
    """
    words = device_kind.replace("-", " ").split()
    if "MIG" in words:
        return None
    known = [name for name in PEAK_TFLOPS if words[: len(name.split())] == name.split()]
    return PEAK_TFLOPS[max(known, key=len)] if known else None
