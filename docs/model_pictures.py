"""Makes docs/pictures/: what the bundled models find in images that suit them and in others.

    python docs/model_pictures.py

It prints the figures and doubts that docs/which_model.md tells. Dots are matched as the cards in
docs/models/ say, in the whole image; a picture shows a part.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import cellcount_jax
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import read_dots, read_image, read_instance_labels
from cellcount_jax.images.points import read_points
from cellcount_jax.report import pictures

WIDTH = 480  # pixels of a picture


class Case(NamedTuple):
    """A model on an image.

    Attributes:
      picture: its name.
      model: a bundled one.
      image: below the folder of the data.
      shown: the part in the picture.
      distance: of a hit, in um of a volume, in pixels; None = half the diameter of the labels.
      options: of the count.
    """

    picture: str
    model: str
    image: str
    shown: tuple[slice, ...]
    distance: float | None = None
    options: dict[str, Any] = {}


def _box(*edges: tuple[int, int]) -> tuple[slice, ...]:
    return tuple(slice(*edge) for edge in edges)


CFOS, MICROGLIA = "lightsheet_cfos/test", "lightsheet_microglia/test"
CASES = (
    Case("nuclei2d_good", "nuclei2d", "nuclei2d/test/61dc249314.tif", _box((0, 240), (0, 320))),
    Case(
        "nuclei2d_doubted", "nuclei2d", "nuclei2d/test/f29fd9c52e.tif", _box((330, 570), (600, 920))
    ),
    Case(
        "nuclei2d_overlap",
        "nuclei2d",
        "vgg/008cell.png",
        _box((0, 180), (0, 240)),
        5.0,
        {"channel": 2},
    ),
    Case("nuclei_he_good", "nuclei_he", "nuclei_he/test/ef3ef194e5.tif", _box((0, 240), (0, 320))),
    Case("nuclei_he_bad", "nuclei_he", "nuclei_he/test/6b0ac2ab04.tif", _box((0, 240), (0, 320))),
    Case(
        "microglia3d_good",
        "microglia3d",
        f"{MICROGLIA}/2248.tif",
        _box((60, 90), (0, 75), (0, 100)),
        12.0,
    ),
    Case(
        "microglia3d_nuclei",
        "microglia3d",
        f"{CFOS}/695.tif",
        _box((50, 60), (0, 150), (0, 200)),
        8.0,
    ),
    Case("nuclei3d_good", "nuclei3d", f"{CFOS}/695.tif", _box((50, 60), (0, 150), (0, 200)), 8.0),
    Case(
        "nuclei3d_other_brain",
        "nuclei3d",
        f"{CFOS}/753.tif",
        _box((50, 60), (0, 150), (0, 200)),
        8.0,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).parents[2] / "shared/data"
    parser.add_argument("--data", type=Path, default=default, help="folder of the data sets")
    parser.add_argument("--only", help="names of pictures, separated by commas")
    output = Path(__file__).parent / "pictures"
    parser.add_argument("--output", type=Path, default=output, help="folder")
    options = parser.parse_args()
    options.output.mkdir(exist_ok=True)
    for case in CASES:
        if not options.only or case.picture in options.only.split(","):
            draw(case, options.data, options.output)


def draw(case: Case, data: Path, output: Path) -> None:
    """Counts, compares with the dots, and draws."""
    path = data / case.image
    image = read_image(path).pixels
    with tempfile.TemporaryDirectory() as folder:
        model = cellcount_jax.load_model(case.model)
        (counted,) = model.count(path, output=folder, **case.options)
        found, summary = counted.points, counted.summary
    if "channel" in case.options:
        image = image[..., [case.options["channel"]]]
    true, distance = truth(path, case.distance, image.shape[:-1])
    spacing = summary["spacing_um"]
    matching = cellcount_jax.match_points(found, true, max_distance=distance, spacing=spacing)
    hit_found, hit_true = np.zeros(len(found), bool), np.zeros(len(true), bool)
    hit_found[matching.pairs[:, 0]], hit_true[matching.pairs[:, 1]] = True, True
    print(f"{case.picture}: true {len(true)}, found {len(found)}, F1 {matching.f1:.3f}")
    for doubt in summary["doubts"]:
        print(f"    {doubt['kind']}: {doubt['text']}")
    start = np.array([edge.start for edge in case.shown])
    stop = np.array([edge.stop for edge in case.shown])

    def inside(points: np.ndarray) -> np.ndarray:
        return np.all((points >= start) & (points < stop), axis=1)

    picture = pictures.overlay(
        image[case.shown],
        predicted=(found - start)[inside(found)],
        true=(true - start)[inside(true)],
        matched_predicted=hit_found[inside(found)],
        matched_true=hit_true[inside(true)],
        spacing=spacing,
        title=f"{case.model} on {path.parent.name}/{path.name}",
    )
    drawn = Image.fromarray(picture)
    height = round(drawn.height * WIDTH / drawn.width)
    drawn = drawn.resize((WIDTH, height), Image.Resampling.LANCZOS)
    drawn.save(output / f"{case.picture}.jpg", quality=88, optimize=True)


def truth(path: Path, distance: float | None, shape: tuple[int, ...]) -> tuple[np.ndarray, float]:
    """`(N, D)` dots of an image and how far from one a hit may be."""
    if distance is not None and path.suffix == ".png":
        dots = path.with_name(path.name.replace("cell", "dots"))
        return read_dots(dots, rule="red", shape=shape), distance
    points = read_points(path.with_suffix(".csv"), ndim=len(shape))
    if distance is None:
        areas = np.bincount(read_instance_labels(path.with_name(f"{path.stem}_labels.tif")).ravel())
        distance = max(4.0, math.sqrt(float(np.median(areas[1:][areas[1:] > 0])) / math.pi))
    return points, distance


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
