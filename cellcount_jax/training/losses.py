"""The two losses of the paper's equation 3, elementwise: the caller reduces.

All maps are `(batch, *spatial, 1)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax import Array

from cellcount_jax import config as settings
from cellcount_jax.maps.gaussian import gaussian_filter_along


def density_loss(prediction: Array, target: Array, *, dot_weight: float = 0.0) -> Array:
    """Squared error of a density map, the first term of equation 3, elementwise.

        (1 + w M) (f - M)²

    Args:
      prediction: f, map of the network, any shape.
      target: M, map of the dots, same shape.
      dot_weight: w; 0 is the paper's. A larger one asks for more near the dots, where the
        few voxels lie that separate cells.

    Returns:
      Same shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> from cellcount_jax import density_loss
      >>> density_loss(jnp.array([0.5, 1.0]), jnp.array([1.0, 1.0])).tolist()
      [0.25, 0.0]
    """
    return (1.0 + dot_weight * target) * jnp.square(prediction - target)


def mask_loss(logits: Array, target: Array) -> Array:
    """Sigmoid cross-entropy of whole-cell masks, elementwise (full-annotation baseline)."""
    return optax.sigmoid_binary_cross_entropy(logits, target)


def supervised_loss(
    prediction: Array, target: Array, *, config: ml_collections.ConfigDict
) -> Array:
    """The loss of a config's target, elementwise, that of a density map added where it has one.

    Args:
      prediction: `(batch, *spatial, 1 or 2)`, maps of the network.
      target: same shape.
      config: its `target` section is used.

    Returns:
      `(batch, *spatial, 1)`.
    """
    if config.target.kernel == "mask":
        return mask_loss(prediction, target)
    # The network's output before the division by the scale is what is compared [authors].
    t = config.target
    maps = density_loss(prediction[..., :1], target[..., :1], dot_weight=t.dot_weight)
    if not t.count_head:
        return t.scale**2 * maps
    densities = density_loss(prediction[..., 1:], target[..., 1:])
    return t.scale**2 * maps + t.count_weight * settings.count_scale(config) ** 2 * densities


def focal_weight(
    teacher: Array, *, sigma: float = 1.0, radius: int = 2, floor: float = 0.1
) -> Array:
    """Weight that is high around the cells that the teacher sees, zero elsewhere.

        α = sum over d' in D' of N(d', σ²)

    D' are the local maxima of the teacher's map (a 3-wide maximum filter), found above
    `floor` only: on a flat background every voxel equals its neighbours' maximum. The kernel
    sums to 1 over its 2 radius + 1 taps an axis. No gradient passes.

    Args:
      teacher: `(batch, *spatial, 1)` map in units where a dot is about 1.
      sigma: width of the Gaussian in voxels.
      radius: its reach in voxels.
      floor: lowest value of a local maximum.

    Returns:
      alpha, same shape as `teacher`.

    Source: paper, section 3.2; 5 taps and sigma 1 from the authors' code; the floor from
    FIDT (Liang et al. 2021).

    Examples:
      >>> import jax.numpy as jnp
      >>> from cellcount_jax import focal_weight
      >>> teacher = jnp.zeros((1, 16, 16, 1)).at[0, 8, 8, 0].set(0.9)  # sees one cell
      >>> weight = focal_weight(teacher)
      >>> round(float(weight.sum()), 3), int((weight > 0).sum())
      (1.0, 25)
    """
    teacher = jax.lax.stop_gradient(teacher)
    maxima = local_maxima(teacher, reach=(0, *(1,) * (teacher.ndim - 2), 0), floor=floor)
    weight = maxima.astype(teacher.dtype)
    for axis in range(1, teacher.ndim - 1):
        weight = gaussian_filter_along(weight, axis, sigma, radius)
    return weight


def local_maxima(values: Array, *, reach: Sequence[int], floor: float) -> Array:
    """Where values are above a floor and the highest in their window, bool, same shape.

    Args:
      values: any shape; no gradient passes.
      reach: of the window to each side, along each axis.
      floor: the value above which a maximum counts.
    """
    window = tuple(2 * r + 1 for r in reach)
    ones = (1,) * values.ndim
    highest = jax.lax.reduce_window(values, -jnp.inf, jax.lax.max, window, ones, "SAME")
    return (values == highest) & (values > floor)


def focal_consistency_loss(student: Array, teacher: Array, weight: Array) -> Array:
    """Weighted squared error to the teacher, the second term of equation 3, elementwise.

        α |f_dec(δ(f_enc(I'))) - f_θ̂(I')|²

    The teacher and the weight pass no gradient. To be averaged over the voxels whose weight
    is not zero [authors], of which there may be none.

    Args:
      student: map from perturbed features or images.
      teacher: map of the same weights without perturbation and dropout, same shape.
      weight: alpha, from `focal_weight`, or ones.

    Returns:
      Same shape.

    Examples:
      >>> import jax.numpy as jnp
      >>> from cellcount_jax import focal_consistency_loss
      >>> student, teacher, weight = jnp.array([[0.5, 0.0], [1.0, 0.5], [1.0, 0.0]])
      >>> focal_consistency_loss(student, teacher, weight).tolist()  # the background is ignored
      [0.25, 0.0]
    """
    teacher = jax.lax.stop_gradient(teacher)
    return jax.lax.stop_gradient(weight) * jnp.square(student - teacher)


def ramp_up(step: Array | int, length: float) -> Array:
    """Weight of the consistency loss, from exp(-5) to 1.

        w(s) = exp(5 (min(s / length, 1) - 1))

    Args:
      step: training step, from 0.
      length: steps until the weight is 1; 0 = at once.

    Returns:
      Scalar float.

    Source: Ouali et al. 2020, as in the authors' code.

    Examples:
      >>> from cellcount_jax import ramp_up
      >>> [round(float(ramp_up(step, 100)), 2) for step in (0, 50, 100, 200)]
      [0.01, 0.08, 1.0, 1.0]
    """
    one = jnp.ones(())
    progress = jnp.minimum(jnp.asarray(step, one.dtype) / length, 1.0) if length > 0 else one
    return jnp.exp(5.0 * (progress - 1.0))


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
