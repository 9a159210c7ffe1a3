"""What the student sees differently from the teacher: the delta of the paper's equation 3.

On the features between encoder and decoder [paper], or on the image [its ablation]. Pure,
key first. Image perturbations take one image `(*spatial, channels)` in normalised units.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from cellcount_jax.targets import gaussian_filter_along


def feature_noise(
    key: Array, levels: Sequence[Array], *, strength: float = 1.0, last_only: bool = True
) -> tuple[Array, ...]:
    """Multiplies features by noise from U(1 - strength, 1 + strength).

    One noise map is shared over the batch [authors].

    Args:
      key: random key.
      levels: encoder levels, each `(batch, *spatial, channels)`, finest first.
      strength: half the width of the noise; 1 is the authors' U(0, 2).
      last_only: the coarsest level only [paper], else every level [authors].

    Returns:
      The levels.
    """
    keys = jax.random.split(key, len(levels))
    first = len(levels) - 1 if last_only else 0
    noisy = list(levels)
    for i in range(first, len(levels)):
        noise = jax.random.uniform(
            keys[i], levels[i].shape[1:], levels[i].dtype, 1 - strength, 1 + strength
        )
        noisy[i] = levels[i] * noise[None]
    return tuple(noisy)


def image_perturbation(key: Array, image: Array, *, kind: str, strength: float) -> Array:
    """Random noise, contrast, brightness or sharpness of one image.

    Args:
      key: random key.
      image: `(*spatial, channels)` in normalised units.
      kind: 'noise', adds N(0, (0.2 s)^2); 'contrast', stretches about the mean by a factor
        of exp(U(-0.5 s, 0.5 s)); 'brightness', adds U(-0.5 s, 0.5 s); 'sharpness', adds
        U(-s, s) times the difference to a blurred copy.
      strength: s.

    Returns:
      The image, same shape and dtype.

    Raises:
      ValueError: the kind is unknown.
    """
    half = 0.5 * strength

    def uniform(limit: float) -> Array:
        return jax.random.uniform(key, (), image.dtype, -limit, limit)

    if kind == "noise":
        return image + 0.2 * strength * jax.random.normal(key, image.shape, image.dtype)
    if kind == "contrast":
        mean = image.mean()
        return mean + (image - mean) * jnp.exp(uniform(half))
    if kind == "brightness":
        return image + uniform(half)
    if kind == "sharpness":
        blurred = image
        for axis in range(image.ndim - 1):
            blurred = gaussian_filter_along(blurred, axis, 1.0, 2)
        return image + uniform(strength) * (image - blurred)
    raise ValueError(f"unknown perturbation {kind!r}")
