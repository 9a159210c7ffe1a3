"""The command that applies a trained model to a file.

python -m cellcount_jax.predict FILE --model WORKDIR --output DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import logging

from cellcount_jax import cache, inference, report, stored_model, writers
from cellcount_jax.data import formats
from cellcount_jax.errors import InputError
from cellcount_jax.inference import TrainedModel


def predict_file(model: TrainedModel, path: Path, output: Path) -> int:
    """Predicts one file; writes points.csv, overlay.png and summary.json.

    Args:
      model: a trained model.
      path: a TIFF or PNG file.
      output: folder for the results, made if missing.

    Returns:
      The number of cells.

    Raises:
      InputError: the file cannot be read or does not fit the model.
    """
    image = formats.read_image(path)
    by_hand = bool(model.config.data.spacing)
    if image.spacing is not None and model.spacing_known and not by_hand:
        ratios = [a / b for a, b in zip(image.spacing, model.spacing, strict=False)]
        if len(image.spacing) != len(model.spacing) or not all(0.9 < r < 1.1 for r in ratios):
            logging.warning(
                "%s: voxels of %s um, but the model was trained on %s um; cells look larger or"
                " smaller to it than they are",
                path,
                image.spacing,
                model.spacing,
            )
    rule = model.config.detect.rule
    try:
        maps = inference.predict_maps(model, image.pixels)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    points, scores = inference.locate(model, maps, rule=rule)
    integral = inference.integral(model, maps)
    formats.write_points(output / "points.csv", points, scores=scores)
    report.save_overlay(
        output / "overlay.png",
        image.pixels,
        predicted=points,
        spacing=image.spacing,
        title=path.name,
    )
    summary = {
        "image": str(path),
        "count": len(points),
        # A second opinion on the count, from a model that has one.
        "integral": None if integral is None else round(integral, 2),
        "rule": rule,
        "threshold": model.thresholds[rule],
        "shape": image.pixels.shape[:-1],
        "spacing_um": image.spacing,
    }
    writers.write_json(output / "summary.json", summary)
    return len(points)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m cellcount_jax.predict",
        description="Finds the cells in an image or volume with a trained model. Writes points.csv"
        " (z,y,x or y,x in voxels, score), overlay.png and summary.json.",
    )
    parser.add_argument("file", type=Path, help="TIFF or PNG image or volume")
    parser.add_argument(
        "--model",
        required=True,
        help="workdir of a finished run, an exported file, or a bundled model",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument(
        "--max-voxels",
        type=int,
        help="cut a larger image in tiles of this size (default: as trained,"
        " config.predict.max_voxels); more needs more memory",
    )
    options = parser.parse_args(arguments)
    cache.keep_programs()
    try:
        model = stored_model.load_model(options.model)
        if options.max_voxels is not None:
            model.config.predict.max_voxels = options.max_voxels
        number = predict_file(model, options.file, options.output)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.file}: {number} cells, written to {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
