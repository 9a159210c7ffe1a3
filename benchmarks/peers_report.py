"""The results of `peers.py` as tables in RESULTS.md."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablation_cells import Cell, Row, load_results
from ablation_report import REFERENCE, as_table, column_of, figures, insert, spread
from peers_cells import DATASETS, METHODS, OURS, Score, Speed, cells

BEGIN = "<!-- peers: begin -->"
END = "<!-- peers: end -->"

Result = Mapping[str, Any]
_SETS = {"test": "test volumes", "same_brain": "the same brain"}
_FAST = f"{OURS}_fast"


def publish(results: Path, tables: Path) -> str:
    """Writes the tables between two markers of a Markdown file, and says where."""
    ablation = load_results(results.parent / "ablation")
    text = as_markdown(load_results(results), ablation=ablation)
    insert(tables, text, begin=BEGIN, end=END)
    return str(tables)


def as_markdown(
    results: Mapping[str, Result], *, ablation: Mapping[str, Result] | None = None
) -> str:
    """All tables, also where the others are better.

    Args:
      results: of the cells, by name.
      ablation: those of `ablation.py`, whose networks of ours learned from as little.
    """
    parts = [
        "## Against other programs",
        "    python benchmarks/peers.py",
        "Each program in an environment of its own, on the same volumes. Settings and thresholds"
        " are chosen on the training volumes (highest F1); the test volumes are only scored.",
        _scores(results),
        _notes(results, ablation or {}),
    ]
    speeds = [cell for cell in cells() if isinstance(cell, Speed) and cell.name in results]
    if speeds:
        parts += [
            "All programs in turn on one volume, a training volume repeated, after one call that"
            " compiles; medians. Ours is all that `cellcount count` does, with its defaults"
            " (points, report and summary written); the others begin with an array and end with"
            " points."
            " 'To ours': how often as fast as ours in the same turn (median), above 1 faster."
            " 'First': from the start of the process, imports and compilation included; ours keeps"
            " compiled programs on the disk from other starts. 'Peak':"
            " of the process and its children together, in that first call. CPU seconds of all"
            " threads hang less on what else runs. What a call costs at its start (cellfinder"
            " starts processes) weighs less in a whole brain.",
            _speeds(results, speeds),
            *_speed_notes(results, speeds),
        ]
    return "\n\n".join(parts)


def _timed(name: str, row: Result) -> str:
    """A program in the table of speeds: ours with its model."""
    if name not in (OURS, _FAST):
        return title(name, row["versions"])
    return f"cellcount_jax, {row['settings']['model']}{' --no-thorough' if name == _FAST else ''}"


def title(name: str, versions: Mapping[str, str]) -> str:
    """A program in the tables, with its version."""
    method = METHODS[name]
    version = versions.get(method.packages[0], "") if method.requirements else ""
    name, comma, how = method.title.partition(",")
    return f"{name} {version}".rstrip() + comma + how


def _scores(results: Mapping[str, Result]) -> str:
    rows = []
    for dataset, about in DATASETS.items():
        for method in METHODS:
            result = results.get(Score(dataset, method).name)
            for name in about.tests:
                place = f"{about.title}, {_SETS[name]}, {about.max_distance:g} um"
                if result is None or "not_run" in result:
                    reason = "not run" if result is None else f"not run: {result['not_run']}"
                    rows.append([place, title(method, {}), reason, "", "", "", "", ""])
                    continue
                s = result["sets"][name]
                figures = [f"{s[key]:.3f}" for key in ("f1", "precision", "recall")]
                counts = ", ".join(f"{v['found']} of {v['true']}" for v in s["volumes"])
                trained = f"{result['f1_on_training_volumes']:.3f}"
                known = title(method, result["versions"])
                rows.append([place, known, *figures, f"{s['mae']:.1f}", counts, trained])
    header = ["volumes", "program", "F1", "precision", "recall", "MAE", "found of true"]
    return as_table([*header, "F1, training"], rows)


def _notes(results: Mapping[str, Result], ablation: Mapping[str, Result]) -> str:
    """What each program knows of the data, the settings chosen, and what was not to be had."""
    notes = []
    for name, method in METHODS.items():
        text = f"- **{method.title}.** {method.choice}"
        for dataset, about in DATASETS.items():
            result = results.get(Score(dataset, name).name)
            if result is None or "not_run" in result:
                continue
            if method.requirements or method.scored:
                text += f" On {about.title}: {_settings(result)}."
            if "training" in result:
                text += f" {_training(result['training'])}"
            failed = {
                str(c["settings"].get("model")): c["failed"]
                for c in result["candidates"]
                if "failed" in c
            }
            if failed and dataset == next(iter(DATASETS)):
                reason = re.sub(r"https?://\S+", "its address", next(iter(failed.values())))
                text += f" {' and '.join(failed)}, which it downloads: not run ({reason})."
        notes.append(text)
    load = [value for r in results.values() if "sets" in r for value in r["load"]]
    if load:
        notes.append(f"- Load of the machine (processes that want a core) {_range(load)}.")
    return "\n".join([*notes[:2], *_from_nothing(ablation), *notes[2:]])


def _from_nothing(ablation: Mapping[str, Result]) -> list[str]:
    """What networks of ours reach that have learned from one training volume and nothing else."""
    texts = []
    for dataset, about in DATASETS.items():
        row = Row(dataset, REFERENCE, 1)
        names = [Cell(dataset, row.method, 1, seed).name for seed in range(row.seeds)]
        found = {name: ablation[name] for name in names if name in ablation}
        for name, column in (("test", "test"), ("same_brain", "held_out")):
            if found and name in about.tests:
                f1 = spread(figures(found, column_of(column, "", "f1")), 3)
                texts.append(f"{about.title}, {_SETS[name]}, {f1}")
        if found:
            minutes = statistics.mean(r["seconds"] for r in found.values()) / 60
            texts[-1] += f" ({minutes:.0f} minutes)"
    if not texts:
        return []
    return [
        "- **cellcount_jax, trained from nothing** on one training volume (the ablation's inverse"
        f" distance kernel, F1 over seeds): {'; '.join(texts)}."
    ]


def _settings(result: Result) -> str:
    """What was chosen, but what is the same in all candidates."""
    every = [c["settings"] for c in result["candidates"]]
    varied = [key for key in result["settings"] if len({str(s.get(key)) for s in every}) > 1]
    chosen = [
        f"{key} {result['settings'][key]}"
        for key in varied
        if key != "model"  # the notes say which network it is
    ]
    if result["threshold"] is not None:
        chosen.append(f"threshold {result['threshold']:.2f}")
    if len(every) > 3:
        chosen[-1:] = [f"{chosen[-1]} (of {len(every)} combinations)"]
    return ", ".join(chosen) or "no choice"


def _training(training: Result) -> str:
    return (
        f"{training['steps']} steps of 4 crops in {training['seconds'] / 60:.0f} minutes"
        f" ({training['cpu_seconds'] / 60:.0f} CPU minutes),"
        f" {training['parameters'] / 1e6:.0f} M parameters."
    )


def _speeds(results: Mapping[str, Result], speeds: list[Speed]) -> str:
    rows = []
    for cell in speeds:
        result = results[cell.name]
        place = f"{DATASETS[cell.dataset].title}"
        if "not_run" in result:
            rows.append([place, f"not run: {result['not_run']}", str(cell.cores), *[""] * 6])
            continue
        size = result["megavoxels"]
        for name, row in result["rows"].items():
            rows.append(
                [
                    f"{place}, {size:.1f} megavoxels",
                    _timed(name, row),
                    str(cell.cores),
                    f"{size / row['seconds']:.3g}",
                    "1" if name == OURS else f"{row['speed_to_ours']:.2f}",
                    f"{row['cpu_seconds'] / size:.3g}",
                    f"{row['first_s']:.0f}",
                    f"{row['peak_bytes'] / 1e9:.2f}",
                    _range([call["load"] for call in row["calls"]]),
                ]
            )
    header = ["volume", "program", "cores", "megavoxels/s", "to ours", "CPU s a megavoxel"]
    return as_table([*header, "first s", "peak GB", "load"], rows)


def _speed_notes(results: Mapping[str, Result], speeds: list[Speed]) -> list[str]:
    """The processor, how many calls, and what failed."""
    done = [results[cell.name] for cell in speeds if "not_run" not in results[cell.name]]
    processors = sorted({r["machine"]["processor"] for r in done})
    calls = sorted({len(row["calls"]) for r in done for row in r["rows"].values()})
    failed = {name: text for r in done for name, text in r["failed"].items()}
    notes = [
        f"{'; '.join(processors)}; {' or '.join(map(str, calls))} timed calls of each program."
        " `load` is the number of processes that wanted a core just before a call, ours and the"
        " others' of the machine."
    ]
    notes += [f"{METHODS[name].title}: not run: {text}." for name, text in failed.items()]
    return notes


def _range(values: list[float]) -> str:
    """Smallest, median and largest."""
    middle = statistics.median(values)
    return f"{min(values):.1f} to {max(values):.1f}, median {middle:.1f}"
