"""Compiled programs of the network: an image in one piece, or a window, to its maps.

A program is compiled once for a function and the sizes of its arrays, and kept.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax import Array

from cellcount_jax.network.passing import COLLECTION, Lags, Passing
from cellcount_jax.network.sau_net import SAUNet, create_model
from cellcount_jax.network.unet import Parts, cut

Jitted = Any  # a function that `jax.jit` gave
# Programs by their function and the arrays that they take.
_compiled: dict[tuple[Jitted, Any], Any] = {}
_shown: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext


def show_compiling(shown: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
    """Sets the context in which programs of the network are compiled, to tell of it."""
    global _shown
    _shown = shown


def call(run: Jitted, *inputs: Any) -> Any:
    """A function of inputs; it may still be computed when this returns."""
    return compiled(run, *inputs)(*inputs)


def compiled(run: Jitted, *inputs: Any) -> Any:
    """The program of a function for inputs of such shapes."""
    leaves = jax.tree.leaves(inputs)
    alike = tuple((x.shape, x.dtype, getattr(x, "sharding", None)) for x in leaves)
    program = _compiled.get((run, alike))
    if program is None:
        with _shown():
            program = run.lower(*inputs).compile()
        _compiled[run, alike] = program
    return program


@functools.cache
def of_image(config: ml_collections.FrozenConfigDict) -> Jitted:
    """Image, at the beginning of an array, to the map."""
    model = create_model(config, trained=True)

    def apply(variables: Any, x: Any, size: Any) -> Any:
        return model.apply(variables, x, size=size)

    return jax.jit(apply)


@functools.cache
def of_window(
    config: ml_collections.FrozenConfigDict,
    part_shapes: tuple[tuple[int, ...], ...],
    blocks_shape: tuple[int, ...],
    beyond: tuple[int, ...],
    lags: Lags | None,
) -> Jitted:
    """A window and what is left of the slab before, to the maps of a part and what is left."""
    model = create_model(config, trained=True)

    def run(variables: Any, state: Any, x: Array, place: Place) -> Any:
        passing = None if lags is None else Passing(place.first, place.size[0], lags)

        def apply(method: Any, x: Any, **options: Any) -> Any:
            nonlocal state
            given = {**variables, **state}
            options |= {"method": method, "passing": passing}
            found, state = model.apply(given, x, mutable=[COLLECTION], **options)
            return found

        *finer, coarse = apply(SAUNet.encode, x, size=place.filled)
        coarse = jnp.pad(coarse, ((0, 0), *((0, n) for n in beyond), (0, 0)))
        coarse = cut(coarse, place.blocks, blocks_shape)
        (coarse,) = apply(SAUNet.attend, (coarse,), size=place.size, origin=place.origin)
        coarse = cut(coarse, place.starts[-1] - place.blocks, part_shapes[-1])
        parts = Parts(place.starts, part_shapes)
        return apply(SAUNet.decode, (*finer, coarse), size=place.filled, parts=parts), state

    # What is left is not donated: to write in its place it would first be copied.
    return jax.jit(run)


def nothing_before(run: Jitted, variables: Any, inputs: Any) -> Any:
    """What is left of the slab before the first one; of windows, which do not pass, nothing is."""
    _, shape = jax.eval_shape(run, variables, {}, *inputs)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape)


class Place(NamedTuple):
    """Where in a mirror image lies what a program of `of_window` computes.

    Attributes:
      starts: `(levels, D)` int32, of the parts of the levels in the window, finest first.
      blocks: `(D,)` int32, of the blocks that attend in the window's coarsest level.
      origin: `(D,)` int32, of the same in the image's.
      size: `(D,)` int32, of the image.
      filled: `(D,)` int32, how much of the window the image fills, from its beginning.
      first: `()` int32, the first plane of the slab.
    """

    starts: Any
    blocks: Any
    origin: Any
    size: Any
    filled: Any
    first: Any
