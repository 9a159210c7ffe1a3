"""The parts of `quarter_hour.py` that train and count, each in a process of its own.

    python benchmarks/quarter_hour_parts.py vgg --seconds=200 --workdir=DIR --output=FILE

A row is in the output as soon as it is measured: who ends the process has those before.
"""

from __future__ import annotations

import argparse
import json
import math
import runpy
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import counting_speed
import ml_collections
import numpy as np
import quarter_hour_images
import timing
import zarr
from counting import CHUNK, cells
from few_labels_cells import METHODS, SOURCES
from flops import step_flops
from quarter_hour_images import CELL

from cellcount_jax.counting import engines
from cellcount_jax.images import files, sources
from cellcount_jax.inference import model_file
from cellcount_jax.inference.job import Job
from cellcount_jax.training import train

ROOT = Path(__file__).parents[1]

# Row -> weight of the consistency loss. The one that takes longer first: its pace is measured.
SIDES = {"with consistency": 1.0, "without": 0.0}
SHAPE = (128, 512, 512)  # of the volume that is counted, z, y, x
MODELS = ("nuclei3d", "microglia3d")
# Runs of compiled steps of the trial: the first compiles, the last has norms that are frozen and
# is compiled anew, those between tell the pace.
_TRIAL = 5
# What the loop does beside steps, and what differs from one run to the next.
_SPARE = 0.9

Make = Callable[[float], ml_collections.ConfigDict]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("part", choices=["vgg", "nuclei2d", "counting"])
    parser.add_argument("--data", type=Path, help="folder of all images")
    parser.add_argument("--seconds", type=float, required=True, help="that the part may take")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="to try it, on generated images")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        timing.tell(row)
        rows.append(row)
        files.write_json(options.output, {"rows": rows})

    if options.part == "counting":
        count(options.workdir, keep, tiny=options.tiny)
        return
    make = {"vgg": paper, "nuclei2d": few_labels}[options.part](images(options), tiny=options.tiny)
    compare(make, options.seconds, options.workdir, keep)


def paper(directory: Path, *, tiny: bool) -> Make:
    """The settings of configs/vgg.py:paper, by weight of the consistency loss."""

    def make(weight: float) -> ml_collections.ConfigDict:
        config = _config("vgg", "paper")
        config.data.dir = str(directory)
        config.consistency.weight = weight
        config.evaluation.overlays = 0
        return make_tiny(config) if tiny else config

    return make


def few_labels(directory: Path, *, tiny: bool) -> Make:
    """The settings of `few_labels.py`, by weight of the consistency loss."""

    def make(weight: float) -> ml_collections.ConfigDict:
        config = _config("folder", "")
        config.update_from_flattened_dict(
            {**SOURCES[CELL.dataset].overrides, **METHODS["paper"].overrides}
        )
        config.data.dir = str(directory)
        config.consistency.weight = weight
        config.evaluation.overlays = 0
        return make_tiny(config) if tiny else config

    return make


def make_tiny(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same settings with a small network, batch and crop, for generated images."""
    config.data.kind = "folder"
    config.model.features, config.model.levels = 4, 2
    config.data.num_labelled, config.data.num_unlabelled = 2, 2
    config.train.crop = (16, 16)
    config.train.batch_labelled, config.train.batch_unlabelled = 1, 2
    config.train.scan_length, config.train.steps = 2, 10
    config.target.max_distance = 8.0
    return config


def images(options: argparse.Namespace) -> Path:
    """The folder of a part's images, which is made where there is none."""
    made: Path = options.workdir / "images"
    if options.tiny:
        quarter_hour_images.make_up(made)
        return made
    data: Path = options.data
    if options.part == "vgg":
        return data / "vgg"
    if (packed := data / quarter_hour_images.PREPARED).is_dir():
        return packed
    quarter_hour_images.link(quarter_hour_images.layout(data), made)
    return made


def compare(
    make: Make, seconds: float, workdir: Path, keep: Callable[[dict[str, Any]], None]
) -> None:
    """Trains both sides for as many steps as there is time for, and scores them.

    Args:
      make: weight of the consistency loss -> settings; `train.steps` is the most.
      seconds: for all of it.
      workdir: a folder for the runs.
      keep: is called with a row as soon as it is there.
    """
    end = time.monotonic() + seconds
    config = make(1.0)
    most = config.train.steps
    pace, beside = trial(config, workdir / "trial")
    share = step_flops(make(0.0)) / step_flops(config)
    steps = steps_that_fit(
        end - time.monotonic(),
        pace=pace,
        beside=beside,
        share=share,
        length=config.train.scan_length,
        most=most,
    )
    for name, weight in SIDES.items():
        began = time.monotonic()
        config = make(weight)
        config.train.steps = config.train.checkpoint_every = steps
        folder = workdir / name.replace(" ", "_")
        content = trained(config, folder)
        keep(
            {
                "side": name,
                "steps": steps,
                "of": most,
                "seconds": time.monotonic() - began,
                "steps/s": _pace(folder, config),
                **scores(content),
            }
        )


def trained(config: ml_collections.ConfigDict, workdir: Path) -> dict[str, Any]:
    """The scores of a run; ends the process if it was asked to stop."""
    content = train.train_and_evaluate(config, workdir)
    if content is None:
        sys.exit("stopped")
    return content


def trial(config: ml_collections.ConfigDict, workdir: Path) -> tuple[float, float]:
    """Steps a second, and the seconds of a run beside its steps: compilation and evaluation."""
    began = time.monotonic()
    config.train.steps = config.train.checkpoint_every = _TRIAL * config.train.scan_length
    trained(config, workdir)
    pace = _pace(workdir, config)
    return pace, max(time.monotonic() - began - config.train.steps / pace, 0.0)


def steps_that_fit(
    seconds: float,
    *,
    pace: float,
    beside: float,
    share: float,
    length: int,
    most: int,
) -> int:
    """How many steps both sides can take.

    Args:
      seconds: that are left for both.
      pace: steps a second of the first side.
      beside: seconds of a first run beside its steps. The later two take half of them each, as the
        search for the fastest convolutions is done.
      share: a step's work of the second side, of the first's.
      length: of a scan, steps.
      most: steps of the config that is shortened.

    Returns:
      A multiple of `length`, at least as many as a trial has.
    """
    for_steps = max(_SPARE * seconds - beside, seconds / 3)
    fitting = int(for_steps * pace / (1 + share) / length)
    return min(max(fitting, _TRIAL), most // length) * length


def scores(content: Mapping[str, Any]) -> dict[str, Any]:
    """The test scores of a run: by its own rule, and F1 by both."""
    test = content["sets"]["test"]
    found = {"rule": content["rule"], "F1": content["f1"], "MAE": content["mae"]}
    for rule in ("peaks", "components"):
        found[f"F1 {rule}"] = test.get(rule, {}).get("f1")
    found["MAE integral"] = test.get("integral", {}).get("mae")
    return found


def count(folder: Path, keep: Callable[[dict[str, Any]], None], *, tiny: bool) -> None:
    """Counts a volume of generated cells with each of the models, compiled before."""
    shape = (32, 72, 136) if tiny else SHAPE
    block = cells(0)
    times = [-(-n // size) for n, size in zip(shape, block.shape, strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "volume.zarr"
    zarr.create_array(file, data=np.tile(block, times)[tuple(map(slice, shape))], chunks=CHUNK)
    for name in MODELS[:1] if tiny else MODELS:
        for flips in (False,) if tiny else (False, True):
            model = model_file.load_model(name).with_settings({"predict.flips": flips})
            with sources.open_source(file) as source:
                job = Job(model, source, folder / "work")
                seconds = [
                    counting_speed.timed(lambda job=job: counting_speed.count(job, _engine))[0]  # type: ignore[misc]
                    for _ in range(2)
                ]
            megavoxels = math.prod(shape) / 1e6
            keep(
                {
                    "model": name,
                    "mirror images": len(job.plan.flips),
                    "megavoxels": megavoxels,
                    "tiles": len(job.plan.cores),
                    "first s": seconds[0],
                    "seconds": seconds[1],
                    "megavoxels/s": megavoxels / seconds[1],
                }
            )


_engine = engines.in_threads


def _config(name: str, variant: str) -> ml_collections.ConfigDict:
    get_config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"]
    config: ml_collections.ConfigDict = get_config(variant)
    return config


def _pace(workdir: Path, config: ml_collections.ConfigDict) -> float:
    """Steps a second of a run: the median of its calls."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    seconds = [line["seconds"] for line in lines if "seconds" in line]
    return config.train.scan_length / statistics.median(seconds)


if __name__ == "__main__":
    main()
