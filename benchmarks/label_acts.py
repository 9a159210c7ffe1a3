r"""How many acts correcting takes, from nothing and from proposals, where the dots are known.

    python -m cellcount_jax.main --config=configs/lightsheet_microglia.py:supervised \
        --config.data.dir=ONLY_6871 --config.data.train_names='("6871",)' --workdir=runs/6871
    python benchmarks/label_acts.py --models 1874=runs/6871 2248=microglia3d 2433=microglia3d \
        6003=microglia3d 6742=microglia3d

where ONLY_6871/train holds the one volume 6871.

A user who makes no mistakes is played with the dots of a volume: each proposal that matches no dot
within 12 um is removed, each dot that no proposal matches is added, through a labelling session on
a copy of the image. One that is displaced by more is both. Then blocks are
marked done, which accepts the rest: one act each. `by score` removes in the order of the least
certain first, and stops where `--stop` of them in a row were right: fewer are looked at, and false
ones may stay.

A model must not have seen the volume with its dots: microglia3d learnt from those of 1874, and
saw 6871 and the volumes of unlabeled/ without dots. The defaults of Otsu's proposals were chosen on
1874, 6871 and c-Fos 969: the volumes of test/ are new to them.
Seconds on 2 cores are those to make the proposals, with the compilation of the model.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import timing

from cellcount_jax.data.blocks import DONE
from cellcount_jax.evaluation.metrics import Matching, match_points
from cellcount_jax.images.points import read_points
from cellcount_jax.inference import model_file
from cellcount_jax.label import proposals
from cellcount_jax.label.blobs import BlobSettings
from cellcount_jax.label.order import least_certain
from cellcount_jax.label.session import Session

DATA = Path("../shared/data/lightsheet_microglia")
NAMES = ("1874", "2248", "2433", "6003", "6742")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("results/label_acts.json"))
    parser.add_argument("--data", type=Path, default=DATA, help="folder of train/ and test/")
    parser.add_argument("--volumes", nargs="+", default=NAMES, help="their dots in CSV files")
    parser.add_argument("--models", nargs="*", default=(), help="NAME=MODEL, new to that volume")
    parser.add_argument("--distance", type=float, default=12.0, help="um, of a true detection")
    parser.add_argument("--stop", type=int, default=20, help="right ones in a row")
    parser.add_argument("--repeats", type=int, default=1, help="not used: nothing is random")
    options = parser.parse_args()
    models = dict(pair.split("=", 1) for pair in options.models)
    rows = []
    for name in options.volumes:
        (file,) = options.data.glob(f"t*/{name}.tif")
        starts = ["nothing", "otsu", "model"][: 3 if name in models else 2]
        for start in starts:
            for by_score in (False, True)[: 1 if start == "nothing" else 2]:
                row = played(options, file, start, models.get(name), by_score=by_score)
                rows.append(row)
                timing.tell(row)
    print()
    timing.publish(rows, options.output, packages=("scikit-image", "scipy"), verdict=_verdict(rows))


def played(
    options: argparse.Namespace, volume: Path, start: str, model: str | None, *, by_score: bool
) -> dict[str, Any]:
    """A row: what a user does from a start until all is right, or by score until it seems so."""
    with tempfile.TemporaryDirectory(prefix="cellcount_") as folder:
        image = Path(shutil.copy(volume, folder))
        with Session(image) as session:
            true = read_points(volume.with_suffix(".csv"), ndim=len(session.grid.shape))
            seconds, told = _proposed(session, start, model)
            row = corrected(session, true, options, by_score=by_score)
    return {
        "volume": volume.stem,
        "from": start + (", by score" if by_score else ""),
        "trained on": told,
        "seconds": seconds,
        **row,
    }


def _proposed(session: Session, start: str, model: str | None) -> tuple[float | None, str | None]:
    """Proposes: seconds, and what the model was trained on."""
    if start == "nothing":
        return None, None
    started = time.perf_counter()
    if start == "otsu":
        settings = BlobSettings(session.edges, **proposals.defaults(session))
        points, scores = proposals.otsu_image(session, settings)
        session.propose(points, scores, by={"method": "otsu"})
        return time.perf_counter() - started, None
    assert model is not None
    points, scores, by = proposals.from_model(session, model)
    session.propose(points, scores, by=by)
    seconds = time.perf_counter() - started
    config = model_file.load_model(model).config
    names = " ".join(config.data.train_names) or Path(config.data.dir).name
    return seconds, f"{names}, {config.train.steps} steps"


def corrected(
    session: Session, true: np.ndarray, options: argparse.Namespace, *, by_score: bool
) -> dict[str, Any]:
    """What it takes until the session's dots are the true ones."""
    before = _matched(session, true, options.distance)
    looked, removed = len(session.dots), 0
    if by_score:
        looked, removed = _remove_by_score(session, before, stop=options.stop)
    else:
        removed = _remove(session, before)
    now = _matched(session, true, options.distance)
    missing = np.setdiff1d(np.arange(len(true)), now.pairs[:, 1])
    for index in missing:
        session.add(true[index])
    left = _matched(session, true, options.distance)
    blocks = np.argwhere(session.state.blocks != DONE)
    for block in blocks:
        session.mark(block[None], DONE)
    assert session.dots.verified.all() and (session.state.blocks == DONE).all()
    acts = removed + len(missing)
    proposed = before.tp + before.fp
    return {
        "cells": len(true),
        "proposed": proposed,
        "precision": before.precision if proposed else None,
        "recall": before.recall if proposed else None,
        "F1": before.f1 if proposed else None,
        "added": len(missing),
        "removed": removed,
        "blocks marked": len(blocks),
        "proposals looked at": looked,
        "acts per 100 cells": 100 * acts / len(true),
        "with blocks": 100 * (acts + len(blocks)) / len(true),
        "false left": left.fp,
        "F1 after": left.f1,
    }


def _matched(session: Session, true: np.ndarray, distance: float) -> Matching:
    return match_points(
        session.dots.points, true, max_distance=distance, spacing=session.source.spacing
    )


def _remove(session: Session, found: Matching) -> int:
    """Removes what is false, each with an act of its own."""
    false = np.setdiff1d(np.arange(len(session.dots)), found.pairs[:, 0])
    for dot in session.dots.ids[false].tolist():
        session.remove([dot])
    return len(false)


def _remove_by_score(session: Session, found: Matching, *, stop: int) -> tuple[int, int]:
    """Looks at the least certain first; how many were looked at, and removed."""
    right = set(session.dots.ids[found.pairs[:, 0]].tolist())
    looked = removed = in_a_row = 0
    after: int | None = None
    total = len(session.dots)
    while looked < total and in_a_row < stop:
        dot = least_certain(session.dots, after)
        assert dot is not None
        looked += 1
        if dot in right:
            in_a_row, after = in_a_row + 1, dot
        else:
            session.remove([dot])
            in_a_row, removed = 0, removed + 1
    return looked, removed


def _verdict(rows: list[dict[str, Any]]) -> str:
    volume = rows[0]["volume"]
    parts = [
        f"{row['from']} {row['acts per 100 cells']:.1f}"
        for row in rows
        if row["volume"] == volume and "score" not in row["from"]
    ]
    return f"acts per 100 cells of {volume}: " + ", ".join(parts)


if __name__ == "__main__":
    main()
