"""A model calibrated on the dots of a session, in the blocks that are done, beside the image."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from cellcount_jax.data.blocks import DONE, BlockStates, Grid
from cellcount_jax.data.labelled_area import LabelledArea
from cellcount_jax.evaluation import calibration
from cellcount_jax.evaluation.calibration import LEAST_DOTS, Dotted, Outcome
from cellcount_jax.images.regions import all_of
from cellcount_jax.inference import model_file
from cellcount_jax.inference.job import Progress, silent
from cellcount_jax.label.acts import State
from cellcount_jax.label.proposals import fitting_model
from cellcount_jax.label.session import Session


def can_calibrate(session: Session) -> bool:
    """Whether there are enough dots in the blocks that are done."""
    return len(_dots_done(session.grid, session.state)) >= LEAST_DOTS


def calibrate(
    session: Session, model: str, *, progress: Progress | None = None
) -> tuple[Path, Outcome]:
    """Calibrates a model on a session's dots in the blocks that are done.

    Args:
      session: its image is taken as `proposals.from_model` takes it.
      model: a run's folder, an exported file, or the name of a model that the package brings.
      progress: as for `proposals.from_model`.

    Returns:
      The new file, `cells.model.zip` beside `cells.tif`, or `cells.model2.zip` and so on, as no
      file is replaced; and what calibration did.

    Raises:
      InputError: see `proposals.fitting_model` and `calibration.calibrate_on`.
    """
    loaded, fitted = fitting_model(session, model)
    source, state = session.source, session.state  # as it is now: the window stays alive
    blocks = BlockStates(session.grid, state.blocks, {})
    area = LabelledArea(all_of(source.shape), blocks)
    dots = _dots_done(session.grid, state)
    image = Dotted(source.path.name, fitted, source.shape, dots, area)
    calibrated, outcome = calibration.calibrate_on(loaded, [image], progress=progress or silent)
    card = calibration.card_of(
        model, model_file.read_card(model_file.model_path(model)), [source.path.name], outcome
    )
    path = _free(session.saved_to.with_suffix(".model.zip"))
    model_file.export_model(calibrated, path, card=card)
    return path, outcome


def summary(outcome: Outcome) -> str:
    """What calibration did, as a sentence for the window."""
    low, high = (100 * limit for limit in outcome.certainty.cells_per_found)
    return (
        f"Threshold {outcome.thresholds[0]:.2f} to {outcome.thresholds[1]:.2f}, F1 on"
        f" {outcome.dots} dots {outcome.f1[0]:.2f} to {outcome.f1[1]:.2f}; where it finds 100 cells"
        f" {low:.0f} to {high:.0f} are to be expected."
    )


def _dots_done(grid: Grid, state: State) -> np.ndarray:
    """`(N, D)` verified dots in the blocks that are done."""
    done = (state.blocks == DONE)[tuple(grid.index_of(state.dots.points).T)]
    return np.asarray(state.dots.points[state.dots.verified & done], np.float32)


def _free(path: Path) -> Path:
    """A path like this one at which nothing is."""
    stem = path.name.removesuffix(".zip")
    for number in itertools.count(1):
        free = path.with_name(f"{stem}{number if number > 1 else ''}.zip")
        if not free.exists():
            return free
    raise AssertionError
