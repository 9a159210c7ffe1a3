"""Spotiflow in 3D for `peers.py`; runs in its own environment.

    python benchmarks/peer_spotiflow.py [train.json]

With a file it trains; else it answers requests, see `peer_loop.py`.
"""

from __future__ import annotations

import datetime
import functools
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
from peer_loop import serve
from spotiflow.model import Spotiflow, SpotiflowModelConfig


def find(volume: np.ndarray, spacing: Sequence[float], settings: Mapping[str, Any]) -> np.ndarray:
    """The spots of a model, `settings['model']`, above `settings['prob_thresh']`."""
    model = _load(settings["model"])
    points, details = model.predict(
        volume, prob_thresh=settings["prob_thresh"], device="cpu", verbose=False
    )
    return np.column_stack([points, details.prob])


@functools.cache
def _load(name: str) -> Spotiflow:
    """A trained folder, or one of the models that Spotiflow downloads."""
    if Path(name).is_dir():
        return Spotiflow.from_folder(name, which="best", map_location="cpu", verbose=False)
    return Spotiflow.from_pretrained(name, map_location="cpu", verbose=False)


def train(request: Mapping[str, Any]) -> dict[str, Any]:
    """Trains for some minutes with Spotiflow's own defaults for volumes (grid 2, 32 feature maps).

    Args:
      request: `train` and `validation`, .npz files with `image` and `points` each; `model`, the
        folder to write; `minutes`; `samples` of an epoch.

    Returns:
      The steps, and the seconds of the clock and of the processor.
    """
    lightning.seed_everything(42, workers=True)
    sets = {part: [np.load(name) for name in request[part]] for part in ("train", "validation")}
    images = {part: [np.asarray(s["image"], np.float32) for s in of] for part, of in sets.items()}
    points = {part: [np.asarray(s["points"], np.float32) for s in of] for part, of in sets.items()}
    model = Spotiflow(SpotiflowModelConfig(is_3d=True, grid=2))
    began, before = time.perf_counter(), sum(os.times()[:4])
    watch = _Watch()
    limit = lightning.callbacks.Timer(duration=datetime.timedelta(minutes=request["minutes"]))
    model.fit(
        images["train"],
        points["train"],
        # One random crop each: several, for a loss that can be compared.
        images["validation"] * request["validation_crops"],
        points["validation"] * request["validation_crops"],
        save_dir=request["model"],
        train_config={"num_epochs": 1_000_000, "num_train_samples": request["samples"]},
        device="cpu",
        callbacks=[limit, watch],
    )
    return {
        "steps": watch.steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": time.perf_counter() - began,
        "cpu_seconds": sum(os.times()[:4]) - before,
    }


class _Watch(lightning.Callback):  # type: ignore[misc]
    """Remembers how many steps there were."""

    steps = 0

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.steps = trainer.global_step


if __name__ == "__main__":
    if len(sys.argv) > 1:
        wanted = json.loads(Path(sys.argv[1]).read_text())
        Path(wanted["model"], "trained.json").write_text(json.dumps(train(wanted)))
    else:
        serve(find)
