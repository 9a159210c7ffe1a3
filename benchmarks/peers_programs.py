"""The programs of `peers.py` as functions of a volume, and the training of Spotiflow's network."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers_cells import SPOTIFLOW_MODEL, Dataset, Settings, path_of
from peers_scores import Find
from peers_worker import Failed, Worker
from transfer import read_sample

from cellcount_jax.data.sample import Sample
from cellcount_jax.images import files

_EPOCH = 64  # crops
_VALIDATION_CROPS = 4  # of each volume


def asking(worker: Worker, folder: Path, *, small: Settings) -> Find:
    """A program as a function; what it has found of a volume stays in a folder.

    Its answers are kept by volume and settings, so that a choice that was stopped goes on.

    Args:
      worker: the program.
      folder: for volumes and answers.
      small: settings that are added to all, and change nothing but the time.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def find(sample: Sample, settings: Settings) -> np.ndarray:
        # Of a model's folder the name is enough.
        key = "_".join(f"{name}={str(value).split('/')[-1]}" for name, value in settings.items())
        kept = folder / f"{sample.name}_{key}.npy"
        if not kept.exists():
            volume, part = folder / f"{sample.name}.npy", folder / f"{sample.name}.part.npy"
            np.save(volume, pixels(sample))
            request = {"volume": str(volume), "spacing": list(sample.spacing)}
            worker.ask({**request, "settings": {**settings, **small}, "output": str(part)})
            part.replace(kept)
        points: np.ndarray = np.load(kept)
        # Some lie beyond the outermost voxels: sub-voxel places, parts of clusters.
        points[:, :3] = np.clip(points[:, :3], 0, np.array(sample.shape) - 1)
        return points

    return find


def pixels(sample: Sample) -> np.ndarray:
    """The volume `(z, y, x)` uint16, as it is in the file."""
    return np.asarray(sample.image)[..., 0].astype(np.uint16)


def filled(candidates: Sequence[Settings], model: str) -> list[Settings]:
    """Candidates with the folder of the network that was trained here."""
    return [
        {name: model if value == SPOTIFLOW_MODEL else value for name, value in settings.items()}
        for settings in candidates
    ]


def train_spotiflow(
    dataset: Dataset, python: str, script: Path, data: Path, folder: Path, *, minutes: float
) -> dict[str, Any]:
    """Trains a network in Spotiflow's environment, unless there is one.

    Args:
      dataset: whose training volumes it learns from; a part of each is held back for Spotiflow's
        own validation.
      python: of the environment.
      script: peer_spotiflow.py.
      data: folder of the images.
      folder: for the parts and the network.
      minutes: when it ends, after the epoch.

    Returns:
      `model`, the folder of the network, and what its training came to.

    Raises:
      Failed: the training ended without a network.
    """
    model = folder / "model"
    done = model / "trained.json"
    if not done.exists():
        model.mkdir(parents=True, exist_ok=True)
        parts: dict[str, list[str]] = {"train": [], "validation": []}
        for name, rows in dataset.train:
            sample = read_sample(path_of(data, dataset, name), rows)
            for part, (image, points) in zip(parts, _halves(sample, rows, dataset), strict=True):
                file = folder / f"{sample.name}_{part}.npz"
                np.savez(file, image=image, points=points)
                parts[part].append(str(file))
        request = folder / "train.json"
        files.write_json(
            request,
            {
                **parts,
                "model": str(model),
                "minutes": minutes,
                "samples": _EPOCH,
                "validation_crops": _VALIDATION_CROPS,
            },
        )
        log = folder / "train.log"
        with log.open("ab") as file:
            status = subprocess.call(
                [python, str(script), str(request)], stdout=file, stderr=subprocess.STDOUT
            )
        if status or not done.exists():
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise Failed(f"training ended with status {status}, see {log}: {' '.join(last)}")
    return {"model": str(model), **json.loads(done.read_text())}


def _halves(sample: Sample, rows: str, dataset: Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """Image and dots of what a network learns from, and of what is held back; rows alone."""
    first, _, last = rows.partition(":")
    low, high = int(first or 0), int(last or sample.shape[1])
    axis, place = dataset.held_back
    image, points = pixels(sample), np.asarray(sample.points)
    found = []
    for start, stop in ((0, place), (place, sample.shape[axis])):
        bounds = [(0, n) for n in sample.shape]
        bounds[1] = (low, high)
        bounds[axis] = (start, stop)
        corner, end = np.array(bounds).T
        inside = ((points >= corner - 0.5) & (points < end - 0.5)).all(1)  # the nearest voxel is
        cut = image[tuple(slice(a, b) for a, b in bounds)]
        found.append((cut, points[inside] - corner))
    return found
