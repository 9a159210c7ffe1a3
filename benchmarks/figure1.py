"""Makes docs/figure1.png, the paper's Fig. 1 with our own targets: two touching cells.

Run it from the repository's root:

    python benchmarks/figure1.py

Three panels: the cells with their dots, the Gaussian density map (one blob, one local maximum)
and the inverse-distance map (eq. 2; two local maxima). Nothing is drawn by hand: the maps come
from `cellcount_jax.maps.targets`, and the numbers in the titles are counted in the maps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from scipy import ndimage

from cellcount_jax.data.scene import generate
from cellcount_jax.maps.targets import gaussian_density_map, inverse_distance_map
from cellcount_jax.report.pictures import VERMILION, colourise, mosaic, save_picture

SCENE = (120, 120)
WINDOW = (56, 56)
RADIUS = 8.0
# A kernel that covers the cell; dots nearer than two sigma become one blob.
SIGMA = 6.0
ENLARGE = 6


def touching_cells() -> tuple[np.ndarray, np.ndarray]:
    """The first synthetic scene of two touching cells, cut out around them.

    Returns:
      The `(y, x)` image and the `(2, 2)` dots in it.
    """
    for seed in range(1000):
        image, points, _, _ = generate(
            jax.random.key(seed), SCENE, count_range=(2, 2), radius=RADIUS, clustering=0.9
        )
        dots = np.asarray(points)
        apart = np.linalg.norm(dots[0] - dots[1])
        corner = np.rint(dots.mean(axis=0)).astype(int) - np.array(WINDOW) // 2
        inside = (corner >= 0).all() and (corner + WINDOW <= SCENE).all()
        if inside and 1.3 * RADIUS < apart < 1.4 * RADIUS:
            (y, x), (height, width) = corner, WINDOW
            return np.asarray(image)[y : y + height, x : x + width, 0], dots - corner
    raise RuntimeError("no scene of two touching cells among the first 1000 seeds")


def num_local_maxima(values: np.ndarray) -> int:
    """Counts the local maxima of 3x3 pixels above a tenth of the highest; a plateau is one."""
    neighbours = np.ones((3, 3), bool)
    highest = values == ndimage.maximum_filter(values, footprint=neighbours)
    _, number = ndimage.label(highest & (values > 0.1 * values.max()), structure=neighbours)
    return number


def panel(colours: np.ndarray, dots: np.ndarray) -> np.ndarray:
    """Enlarges a panel and marks each dot with a cross."""
    height, width = colours.shape[:2]
    picture = np.asarray(
        Image.fromarray(colours).resize(
            (width * ENLARGE, height * ENLARGE), Image.Resampling.NEAREST
        )
    ).copy()
    for y, x in np.rint((dots + 0.5) * ENLARGE).astype(int):
        picture[y - 1 : y + 2, x - 7 : x + 8] = VERMILION
        picture[y - 7 : y + 8, x - 1 : x + 2] = VERMILION
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("docs/figure1.png"))
    output = parser.parse_args().output

    image, dots = touching_cells()
    gaussian = np.asarray(gaussian_density_map(jnp.asarray(dots), WINDOW, sigma=SIGMA))
    inverse = np.asarray(inverse_distance_map(jnp.asarray(dots), WINDOW))
    grey = np.clip(255 * (image - image.min()) / np.ptp(image), 0, 255).astype(np.uint8)
    none = np.zeros((0, 2))
    maxima = {"gaussian": num_local_maxima(gaussian), "inverse": num_local_maxima(inverse)}
    figure = mosaic(
        [
            panel(np.repeat(grey[..., None], 3, axis=-1), dots),
            panel(colourise(gaussian), none),
            panel(colourise(inverse), none),
        ],
        titles=[
            f"Two touching cells\n{len(dots)} dots",
            f"Gaussian, sigma {SIGMA:g} px\nlocal maxima: {maxima['gaussian']}",
            f"Inverse distance\nlocal maxima: {maxima['inverse']}",
        ],
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    save_picture(output, figure)
    print(f"{output}: local maxima {maxima}, dots {np.round(dots, 1).tolist()}")


if __name__ == "__main__":
    main()
