"""A volume like a whole brain through the command: time of each step, memory, and what it said.

    python benchmarks/brain.py --folder=runs/brain

Tissue is real: blocks of c-Fos volumes, again and again, in an ellipsoid that fills two fifths of
the volume, as a mouse's brain fills its box; around it is the medium beside the tissue of a real
volume. The bundled model nuclei3d counts it, with its defaults. The volume of 8 gigavoxels takes
7 GB in --folder, where it is used again. --shape 480 1024 1024 takes 5 minutes on 2 cores without
AVX-512.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import counting
import numpy as np
import timing
import zarr

from cellcount_jax.images.image_files import read_image
from cellcount_jax.images.regions import Region, extent
from cellcount_jax.inference import model_file, survey
from cellcount_jax.inference.plan import make_plan

DATA = Path(__file__).parents[1] / "../shared/data/lightsheet_cfos"
TISSUE = ("train/969", "test/695", "test/753", "unlabeled/1230u", "unlabeled/753u")
MEDIUM = ("unlabeled/695u", 45)  # from this plane on there is no tissue
SHAPE = (960, 2900, 2900)
CHUNK = (64, 128, 128)
AXES = 0.457  # half axes of the ellipsoid, in edges: 0.4 of the volume
_KINDS = ("compute", "find")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="of the volume and its results (a temporary)")
    parser.add_argument("--output", type=Path, default=Path("results/brain.json"))
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar=("Z", "Y", "X"))
    parser.add_argument("--tiny", action="store_true", help="for a test")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cellcount_") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        shape = tuple(options.shape)
        tile = model_file.load_model(counting.MODEL).config.predict.max_voxels
        if options.tiny:
            shape, tile = (32, 96, 224), 650_000
        file = make(folder, shape)
        row = measure(folder, file, shape, tile=tile)
    timing.tell(row)
    share = row["computed"] / row["tiles"]
    said = f"{row['from then']:.0f} s, {row['said s'] * share:.0f} s said for the tiles computed"
    timing.publish([row], options.output, verdict=said)


def make(folder: Path, shape: tuple[int, ...]) -> Path:
    """The volume, made where it is not there; a part that was not finished is made anew."""
    file = folder / f"brain_{'_'.join(map(str, shape))}.zarr"
    done = folder / f"{file.stem}.done"
    if done.exists():
        return file
    array = zarr.create_array(
        file, shape=shape, chunks=CHUNK, dtype="uint16", dimension_names="zyx", overwrite=True
    )
    blocks = [read_image(DATA / f"{name}.tif").pixels[..., 0] for name in TISSUE]
    name, first = MEDIUM
    medium = read_image(DATA / f"{name}.tif").pixels[first:, ..., 0]
    for number, chunk in enumerate(chunks(shape)):
        tissue, size = inside(chunk, shape), extent(chunk)
        block = of_block(blocks[number % len(blocks)], size)
        array[chunk] = np.where(tissue, block, of_block(medium, size)).astype(np.uint16)
    done.touch()
    return file


def chunks(shape: tuple[int, ...]) -> Iterator[Region]:
    grid = itertools.product(*(range(0, n, edge) for n, edge in zip(shape, CHUNK, strict=True)))
    for corner in grid:
        sides = zip(corner, CHUNK, shape, strict=True)
        yield tuple(slice(at, min(at + edge, n)) for at, edge, n in sides)


def inside(chunk: Region, shape: tuple[int, ...]) -> np.ndarray:
    """`(*chunk,)` bool: which voxels of a chunk are tissue."""
    away = [
        ((np.arange(part.start, part.stop) - n / 2) / (AXES * n)) ** 2
        for part, n in zip(chunk, shape, strict=True)
    ]
    near: np.ndarray = np.add.outer(np.add.outer(away[0], away[1]), away[2]) <= 1
    return near


def of_block(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """A part of a volume, of a size up to `CHUNK`, mirrored where the volume ends."""
    pad = [(0, max(0, edge - n)) for edge, n in zip(CHUNK, values.shape, strict=True)]
    return np.pad(values, pad, "reflect")[tuple(map(slice, size))]


def measure(folder: Path, file: Path, shape: tuple[int, ...], *, tile: int) -> dict[str, Any]:
    """Counts the volume anew: what it took, in all and for each step."""
    row, said, output = counting.count(folder, file, shape, tile=tile, features=8, anew=True)
    started = time.time() - row["from then"]
    summary = json.loads((output / "summary.json").read_text())
    work = output / "work"
    ends = [(work / "survey.npz").stat().st_mtime]
    ends += [max(f.stat().st_mtime for f in (work / "done").glob(f"{k}-*")) for k in _KINDS]
    steps = np.diff([started, *ends])
    model = model_file.load_model(counting.MODEL)
    plan = make_plan(model.with_settings({"predict.max_voxels": tile}).config, shape)
    tissue = sum(int(inside(chunk, shape).sum()) for chunk in chunks(shape))
    row["computed"] = summary["tiles"] - summary["tiles_constant"] - summary["tiles_dark"]
    computed = np.flatnonzero(survey.load(work / "survey.npz").computed).tolist()
    row |= {"slabs": plan.windows(computed), "runs": len(plan.runs(computed)), "shape": list(shape)}
    row |= {"window": "x".join(map(str, plan.window_shape)), "tissue": tissue / math.prod(shape)}
    names = ("survey s", "computing s", "searching s")
    return row | said | dict(zip(names, steps.tolist(), strict=True))


if __name__ == "__main__":
    main()
