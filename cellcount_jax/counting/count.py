"""Counts of files: a folder of results for each input, and one table of all of them."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cellcount_jax.counting import (
    announce,
    batch,
    claim,
    counts_page,
    counts_table,
    engines,
    job_file,
    region_counts,
    results,
)
from cellcount_jax.counting.identity import check_unchanged, identity_of, key_of
from cellcount_jax.counting.options import Options, check_options
from cellcount_jax.errors import InputError, at_hand
from cellcount_jax.images.files import check_apart, check_folder
from cellcount_jax.images.inputs import Input, files_of
from cellcount_jax.images.label_volumes import open_label_volume
from cellcount_jax.images.regions import Resampled
from cellcount_jax.images.sources import Source, open_source
from cellcount_jax.inference import cells, doubts, model_file, search, tasks
from cellcount_jax.inference.cells import Found
from cellcount_jax.inference.doubts import Doubt
from cellcount_jax.inference.fitted import (
    GIVEN,
    Fitted,
    naming,
    voxel_size_doubt,
    voxel_size_warning,
)
from cellcount_jax.inference.job import Engine, Job
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.progress import reading

_TIMED_WINDOWS = 50  # of fewer, to do one for its time would take too long


def count_files(
    model: TrainedModel,
    inputs: Sequence[Input],
    output: Path,
    *,
    options: Options,
    name: str,
    show: Callable[[str], None] = lambda _: None,
    failed: Callable[[Exception, str], None] = lambda *_: None,
    engine: Callable[[Job], Engine] = engines.in_threads,
) -> list[dict[str, Any]]:
    """Counts the cells in files, one after the other.

    An input that cannot be counted does not keep the others from it. A count that was stopped goes
    on when it is called again.

    Args:
      model: a trained model.
      inputs: from `inputs.find_inputs`.
      output: folder; each input gets one in it, with points.csv, pictures and summary.json, and
        counts.csv a row an input, which is written as soon as it is counted and takes the place
        of an earlier one, see `counts_table.merge`.
      options: see `Options`.
      name: of the model, for the summaries.
      show: called with each line that describes an input, its work or its result.
      failed: called with the error of an input, and its text, if there are other inputs.
      engine: makes the engine that runs the tasks of an image in tiles, see `cluster.engines_on`.

    Returns:
      The rows of counts.csv, which `options.dry_run` does not write; with an 'error' where an
      input could not be counted.

    Raises:
      InputError: the options do not fit the model or each other; a results folder is, holds or lies
        in a file that is read, or cannot be written (nothing is done then); counts.csv cannot be
        written. And any error of the only input: it cannot be read, does not fit the model or is
        written to while it is counted, its folder holds the results of another count, or another
        count is writing there.
    """
    check_options(model, options)
    check_folder(output)
    folders = {item: claim.folder_for(output, item.name) for item in inputs}
    places = [place for folder in folders.values() for place in claim.places(folder)]
    read = [path for item in inputs for path in (item.path, *item.files)]
    read += [path for given in options.beside for path in files_of(given)]
    check_apart(places, read)
    table = output / counts_table.NAME
    for path in (table, output / counts_page.NAME):
        if path.resolve() in folders.values():
            raise InputError(f"{path}: is of all counts; rename the input that is called so")
    counts_table.read(table)
    counts_page.check(output)
    digest = model_file.digest(model)[:12]

    def count(item: Input) -> batch.Finish:
        return _count_input(
            model, item, folders[item], digest, options=options, name=name, show=show, engine=engine
        )

    try:
        return batch.count_each(inputs, None if options.dry_run else table, count, failed=failed)
    finally:
        # Also of what was counted before Ctrl-C.
        if not options.dry_run and table.exists():
            counts_page.write(output)


def _count_input(
    model: TrainedModel,
    item: Input,
    folder: Path,
    digest: str,
    *,
    options: Options,
    name: str,
    show: Callable[[str], None],
    engine: Callable[[Job], Engine],
) -> batch.Finish:
    """Finds the cells of one input; see `count_files`.

    Returns:
      What writes its results, and gives values for its row of counts.csv; none with
      `options.dry_run`.
    """
    started = time.perf_counter()
    if item.scene is not None:
        selection = dataclasses.replace(options.selection, scene=item.scene)
        options = dataclasses.replace(options, selection=selection)
    with at_hand(item.path), contextlib.ExitStack() as stack:
        with batch.claiming():
            check_folder(folder)
            if not options.dry_run:
                stack.enter_context(claim.locked(folder))
        source = stack.enter_context(
            open_source(item.path, options.selection, as_slices=item.as_slices)
        )
        show(announce.describe_image(source))
        if unseen := announce.describe_unseen(source):
            show(unseen)
        if warning := voxel_size_warning(model, source, rescale=options.rescale):
            show(warning)
        results.check_labels(source, options.outputs)
        fitted = _fitted(model, source, options)
        if fitted.diameter is not None and fitted.diameter_from != GIVEN:
            about = f"{fitted.diameter:.3g} pixels ({fitted.diameter_from})"
            show(f"{item.path}: cells of about {about}")
        origin = job_file.origin(
            item.path,
            options.selection,
            as_slices=item.as_slices,
            rescale=options.rescale,
            diameter=fitted.diameter,
            inverted_from=fitted.inverted_from,
        )
        job = _job(model, source, fitted, folder, options, origin, stack)
        identity = identity_of(
            job,
            source,
            fitted,
            selection=options.selection,
            rescale=options.rescale,
            model_digest=digest,
        )
        with batch.claiming():
            claim.check(folder, identity, overwrite=options.overwrite)
        if options.dry_run or not job.plan.whole:
            here = options.dry_run or engine is engines.in_threads
            show(announce.describe_job(job, here=here))
            # Of few tiles one takes long, and what has begun may be nearly done.
            many = job.plan.windows(range(len(job.plan.cores))) >= _TIMED_WINDOWS
            if options.dry_run or (here and many and not tasks.has_begun(job)):
                show(announce.describe_time(job))
        if options.dry_run:
            return dict
        threshold = model.threshold_from(options.threshold)
        # What was counted of it before is deleted, as it may have changed unseen.
        anew = options.overwrite and unseen is not None
        if not job.plan.whole:
            # Tiles leave their results in the folder; an image in one piece only if it can be
            # counted.
            with batch.claiming():
                claim.take(folder, identity, overwrite=options.overwrite, anew=anew)
            job_file.revoke(job.folder)
        key = key_of(identity)
        searched = search.search(
            job, engine=engine(job), progress=reading, key=None if anew else key
        )
        found = cells.choose(job, searched, threshold=threshold)
        kept = stack.pop_all()

    def finish() -> dict[str, Any]:
        with at_hand(item.path), kept:
            check_unchanged(source, job.mask, identity)
            with batch.claiming():
                claim.take(folder, identity, overwrite=options.overwrite)
            search.keep(job, searched, key=key)
            summary, reasons = _write_results(
                job, source, fitted, found, options=options, name=name
            )
        seconds = time.perf_counter() - started
        cells = "cell" if summary["count"] == 1 else "cells"
        show(f"{item.path}: {summary['count']} {cells} ({seconds:.1f} s)")
        lower = threshold < model.threshold_from(None)
        if lower and (line := announce.describe_dark(item.path, found)):
            show(line)
        if line := announce.describe_doubts(item.path, reasons):
            show(line)
        return {
            "count": summary["count"],
            **({} if summary["integral"] is None else {"integral": summary["integral"]}),
            "voxels": summary["voxels_counted"],
            "doubts": "; ".join(doubt.kind for doubt in reasons),
        }

    return finish


def _write_results(
    job: Job,
    source: Source,
    fitted: Fitted,
    found: Found,
    *,
    options: Options,
    name: str,
) -> tuple[dict[str, Any], Sequence[Doubt]]:
    """Writes the folder of one input; see `count_files`.

    Returns:
      The content of summary.json, and the doubts about the count.
    """
    model, folder = job.model, job.folder.parent
    mask = job.mask if isinstance(job.mask, region_counts.Mask) else None
    reasons = doubts.find(model, job.image, found, mask=job.mask)
    if voxels := voxel_size_doubt(model, source, rescale=options.rescale):
        reasons = (voxels, *reasons)
    found = found.moved(fitted.back)
    resampled = isinstance(fitted.image, Resampled)
    summary = {
        **results.summarise(source, found),
        "voxels_counted": round(math.prod(source.shape) * (mask.share_of_all if mask else 1)),
        **options.selection.part,
        "axes_given": options.selection.axes,
        "mask": None if options.mask is None else str(options.mask),
        "model": name,
        "model_step": model.step,
        "rule": model.config.detect.rule,
        "threshold": model.threshold_from(options.threshold),
        "mirror_images": len(job.plan.flips),
        "rescaled_to_um": list(model.spacing) if options.rescale and resampled else None,
        "diameter": None if fitted.diameter is None else round(fitted.diameter, 2),
        "diameter_from": fitted.diameter_from or None,
        "inverted": fitted.inverted_from is not None,
        "doubts": [doubt.to_json() for doubt in reasons],
    }
    results.write(folder, source, found, summary=summary, wanted=options.outputs, mask=mask)
    return summary, reasons


def _fitted(model: TrainedModel, source: Source, options: Options) -> Fitted:
    """The image of an input as the model takes it."""
    spacing = source.spacing if options.rescale else None
    with naming(model, source):
        return model.fitted(
            source, spacing=spacing, diameter=options.diameter, invert=options.invert
        )


def _job(
    model: TrainedModel,
    source: Source,
    fitted: Fitted,
    folder: Path,
    options: Options,
    origin: Mapping[str, Any],
    stack: contextlib.ExitStack,
) -> Job:
    """The job of an input; the stack closes its mask."""
    with naming(model, source):
        mask = None
        if options.mask is not None:
            labels = open_label_volume(options.mask, shape=source.shape, spacing=source.spacing)
            mask = region_counts.Mask(stack.enter_context(labels))
        return Job(model, fitted.image, folder / claim.WORK, mask, origin)
