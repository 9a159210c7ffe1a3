"""The distance transform and the target maps against SciPy and the package edt, in turn.

    pip install edt
    python benchmarks/targets.py

The grids have as many dots as VGG's images (170 in 256x256), in 3D one in 3,000 voxels. Before
anything is timed, all distances within the cut of 32 voxels, and all maps, are compared with
SciPy's and with edt's to 1e-5. Ours are cut; the others compute distances without a cut.

Columns: `what` is `distance` (Boolean grid to distances) or `map` (dots to the map of equation 2:
the others fill a grid, transform it and apply the kernel with NumPy); `grid` and `dots` are of one
image, `images` how many there are: ours are transformed by one call under vmap, the others' in a
loop. Times are medians in milliseconds. edt is timed with one thread and with one for each core,
and the faster of the two counts (`edt threads`). A ratio below 1 says that ours is faster. About
1 minute on 2 cores.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import edt
import jax
import jax.numpy as jnp
import numpy as np
import timing
from scipy import ndimage

from cellcount_jax.machine import core_count
from cellcount_jax.maps import targets

CUT = 32.0
# Grid -> how many images there are in a batch.
GRIDS = {(256, 256): 8, (600, 600): 8, (64, 224, 224): 2}
TINY_GRIDS = {(40, 50): 3, (10, 14, 12): 2}
VOXELS_PER_DOT = {2: 256 * 256 / 170, 3: 3000.0}
TOLERANCE = 1e-5

Transform = Callable[[np.ndarray], np.ndarray]
# Side -> a call on all images, which is timed, and what makes its result comparable.
Sides = dict[str, tuple[Callable[[], Any], Callable[[Any], np.ndarray]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--tiny", action="store_true", help="to try it: small grids")
    parser.add_argument("--output", type=Path, default=Path("results/targets.json"))
    options = parser.parse_args()
    rows = []
    for shape, batch in (TINY_GRIDS if options.tiny else GRIDS).items():
        for images in (1, batch):
            dots = random_dots(shape, images)
            for what, sides in {
                "distance": distances(shape, dots),
                "map": maps(shape, dots),
            }.items():
                check(sides, f"{what} on {images} x {shape}")
                seconds = timing.interleaved(
                    {name: call for name, (call, _) in sides.items()}, repeats=options.repeats
                )
                rows.append(row(what, shape, dots, seconds))
                timing.tell(rows[-1])
    print()
    worst = max(row["ours / edt"] for row in rows)
    timing.publish(
        rows,
        options.output,
        packages=["edt", "scipy"],
        verdict=f"worst ratio {worst:.2f} (ours / edt)",
    )


def random_dots(shape: Sequence[int], images: int) -> np.ndarray:
    """Dots on voxels, each on its own: `(images, K, D)` int32."""
    voxels = math.prod(shape)
    count = round(voxels / VOXELS_PER_DOT[len(shape)]) or 1
    rng = np.random.default_rng(0)
    drawn = np.stack([rng.choice(voxels, count, replace=False) for _ in range(images)])
    return np.stack(np.unravel_index(drawn, tuple(shape)), axis=-1).astype(np.int32)


def empty(shape: Sequence[int], dots: np.ndarray) -> np.ndarray:
    """Where there is no dot: what SciPy and edt measure to the edge of."""
    grid = np.ones(tuple(shape), bool)
    grid[tuple(dots.T)] = False
    return grid


def transforms() -> dict[str, Transform]:
    """The others, by name."""
    found: dict[str, Transform] = {"scipy": ndimage.distance_transform_edt}
    for threads in sorted({1, core_count()}):
        found[f"edt {threads}"] = functools.partial(edt.edt, parallel=threads)
    return found


def distances(shape: Sequence[int], dots: np.ndarray) -> Sides:
    """From Boolean grids to distances."""
    grids = np.stack([empty(shape, image) for image in dots])
    transform = functools.partial(targets.distance_transform, max_distance=CUT)
    sides: Sides = {"ours": (ours(transform, ~grids), np.asarray)}
    for name, other in transforms().items():
        sides[name] = (functools.partial(each, other, grids), within_the_cut)
    return sides


def maps(shape: Sequence[int], dots: np.ndarray) -> Sides:
    """From dots to the maps of equation 2."""
    make = functools.partial(targets.inverse_distance_map, shape=tuple(shape), max_distance=CUT)
    sides: Sides = {"ours": (ours(make, dots), np.asarray)}

    def with_numpy(other: Transform, image: np.ndarray) -> np.ndarray:
        return inverse_distance(other(empty(shape, image)))

    for name, other in transforms().items():
        one = functools.partial(with_numpy, other)
        sides[name] = (functools.partial(each, one, dots), np.stack)
    return sides


def each(function: Transform, images: np.ndarray) -> list[np.ndarray]:
    return [function(image) for image in images]


def ours(function: Callable[[jax.Array], jax.Array], images: np.ndarray) -> Callable[[], jax.Array]:
    """A call of a compiled function of one image on all images."""
    compiled = jax.jit(jax.vmap(function) if len(images) > 1 else lambda x: function(x[0])[None])
    on_device = jnp.asarray(images)
    return lambda: compiled(on_device).block_until_ready()


def inverse_distance(distance: np.ndarray) -> np.ndarray:
    """Equation 2 in NumPy."""
    distance = distance.astype(np.float32)
    kernel = 1 / (distance ** (np.float32(0.02) * distance + np.float32(0.75)) + 1)
    return np.where(distance <= CUT, kernel, np.float32(0))


def within_the_cut(distance: list[np.ndarray]) -> np.ndarray:
    whole = np.stack(distance)
    return np.where(whole <= CUT, whole, np.inf)


def check(sides: Sides, what: str) -> None:
    """Makes sure that all sides compute the same.

    Raises:
      SystemExit: they do not.
    """
    results = {name: comparable(call()) for name, (call, comparable) in sides.items()}
    for name, result in results.items():
        if not np.allclose(results["ours"], result, rtol=0, atol=TOLERANCE):
            raise SystemExit(f"error: {what}: ours and {name} differ by more than {TOLERANCE}")


def row(
    what: str, shape: Sequence[int], dots: np.ndarray, seconds: dict[str, float]
) -> dict[str, Any]:
    fastest = min((name for name in seconds if name.startswith("edt")), key=seconds.__getitem__)
    return {
        "what": what,
        "grid": "x".join(map(str, shape)),
        "dots": dots.shape[1],
        "images": len(dots),
        "ours ms": 1e3 * seconds["ours"],
        "scipy ms": 1e3 * seconds["scipy"],
        "edt ms": 1e3 * seconds[fastest],
        "edt threads": int(fastest.removeprefix("edt ")),
        "ours / scipy": seconds["ours"] / seconds["scipy"],
        "ours / edt": seconds["ours"] / seconds[fastest],
    }


if __name__ == "__main__":
    main()
