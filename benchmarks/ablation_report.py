"""The results of the ablation as tables in RESULTS.md and a figure over the labelled images."""

from __future__ import annotations

import importlib.util
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ablation_figure
from ablation_cells import (
    BASELINE,
    METHODS,
    ROWS,
    Row,
    chosen_gaussian,
    load_results,
    training_f1,
)

from cellcount_jax.images.files import replacing

BEGIN = "<!-- ablation: begin -->"
END = "<!-- ablation: end -->"
REFERENCE = "inverse_distance"
FOCAL = "focal_last"

Result = Mapping[str, Any]
Figures = dict[Any, float]  # seed, or draw and seed -> value

# The paper's Tables 1 to 3: method, labelled images, F1, MAE.
_QUOTED_VGG = (
    ("Arteta et al., quoted", 32, 0.9346, 5.1),
    ("GMN, quoted", 32, 0.9018, 3.6),
    ("SAU-Net, quoted", 64, 0.9451, 2.6),
    ("The paper, quoted", 8, 0.9678, 5.6),
)
_QUOTED_VOLUMES = (
    ("Gaussian kernel (Table 1)", "1", 0.9355, 57.8),
    ("Full annotations (Table 1)", "1", 0.9412, 42.2),
    ("Inverse distance kernel (Table 1)", "1", 0.9521, 13.8),
    ("Inverse distance kernel + self-supervised learning (Tables 1 and 3)", "1", 0.9586, 12.4),
    ("NuMorph, full annotation (Table 3)", "4", 0.9537, 50.1),
    ("CUBIC, unsupervised (Table 3)", "none", 0.9543, 36.2),
    ("SAU-Net, dots (Table 3)", "4", 0.9397, 42.2),
)
# Title, data set, labelled images, test set.
_TABLES = (
    ("VGG, 8 labelled images", "vgg", 8, "test"),
    ("c-Fos across brains, 1 labelled volume", "cfos", 1, "test"),
    ("c-Fos in the same brain, 1 labelled volume", "cfos", 1, "held_out"),
    ("Microglia, 1 labelled volume", "microglia", 1, "test"),
    ("MBM, 15 labelled images", "mbm", 15, "test"),
)


def publish(results: Path, tables: Path) -> str:
    """Writes the tables between two markers of a Markdown file, and the figure.

    Args:
      results: folder of the cells' files; the figure is written beside it, as labels.png.
      tables: the Markdown file. What stands outside the markers stays as it is; where there are
        none, they are appended.

    Returns:
      What has been written, in a line.
    """
    found = load_results(results)
    figure = results.parent / "labels.png"
    said = draw(ablation_figure.of_vgg(over_labels(found)), figure)
    link = os.path.relpath(figure, tables.parent) if figure.exists() else ""
    insert(tables, as_markdown(found, figure=link), begin=BEGIN, end=END)
    return ", ".join([str(tables), *said])


def draw(panels: Sequence[ablation_figure.Panel], path: Path) -> list[str]:
    """Draws a figure where that is possible; what has been written, or why not."""
    if importlib.util.find_spec("matplotlib") is None:
        return ["no figure, as matplotlib is not installed"]
    return [str(path)] if ablation_figure.draw(panels, path) else []


def insert(document: Path, text: str, *, begin: str, end: str) -> None:
    """Writes a text between two markers of a file, or where there are none at its end."""
    before = document.read_text() if document.exists() else ""
    with replacing(document) as temporary:
        temporary.write_text(inserted(before, text, begin=begin, end=end))


def inserted(document: str, text: str, *, begin: str = BEGIN, end: str = END) -> str:
    """A document with a text between its two markers."""
    block = f"{begin}\n{text.strip()}\n{end}"
    head, opened, rest = document.partition(begin)
    _, closed, tail = rest.partition(end)
    if opened and closed:
        return head + block + tail
    if opened or end in document:
        raise ValueError(f"only one of the two markers {begin} and {end} is there")
    return document.rstrip("\n") + ("\n\n" if document.strip() else "") + block + "\n"


def as_markdown(results: Mapping[str, Result], *, figure: str = "") -> str:
    """All tables; `figure` is the path of the figure from where they stand."""
    parts = ["## Ablation", "    python benchmarks/ablation.py", _preamble(results)]
    for title, dataset, labelled, test_set in _TABLES:
        parts += [f"### {title}", _table(results, dataset, labelled, test_set)]
        parts += _notes(results, dataset, labelled, test_set)
    rows = [[title, n, f"{f1:.4f}", f"{mae:.1f}"] for title, n, f1, mae in _QUOTED_VOLUMES]
    parts += [
        "### The paper's light-sheet rows, quoted",
        "Other data, not comparable with the c-Fos and microglia tables number for number: 16"
        " training and 5 test volumes of mouse cortex with 861 ± 256 cells each.",
        as_table(["method", "labelled", "F1", "MAE"], rows),
        "### How many labelled images? VGG",
        *([f"![F1 against the number of labelled images]({figure})"] if figure else []),
        _table_over_labels(results),
    ]
    return "\n\n".join(parts)


def _preamble(results: Mapping[str, Result]) -> str:
    text = (
        "Mean ± standard deviation over seeds, in which weights, batches and noise differ, the"
        " data not. Thresholds are chosen on the training images. F1 and MAE are those of the"
        " run's rule where no other is named: peaks; with full annotation components."
        " 'Paired': the mean over seeds of a row's F1 minus that of the inverse distance kernel"
        " of the same seed, which starts from the same weights."
    )
    return f"{text}\n\n{effort(results)}" if results else text


def effort(results: Mapping[str, Result]) -> str:
    """How many cells there are, how long they took, on what, and of which commits they are."""
    hours = sum(r["seconds"] for r in results.values()) / 3600
    commits = ", ".join(sorted({r["commit"] for r in results.values()}))
    machines = {(r["machine"]["cores"], r["machine"]["device"]) for r in results.values()}
    names = "; ".join(f"{cores} cores, {device}" for cores, device in sorted(machines))
    return f"{len(results)} cells, {hours:.1f} hours on {names}; commits {commits}."


def _table(results: Mapping[str, Result], dataset: str, labelled: int, test_set: str) -> str:
    columns = _columns(test_set, volumes=dataset in ("cfos", "microglia"))
    f1 = column_of(test_set, "", "f1")
    reference = figures(_cells(results, dataset, REFERENCE, labelled), f1)
    rows = []
    for row in _rows(results, dataset, labelled):
        found = _cells(results, dataset, row.method, labelled)
        title = METHODS[row.method].title
        if not found:
            rows.append([title, "not run", *[""] * (len(columns) + 2)])
            continue
        cells = [spread(figures(found, column), _digits(name)) for name, column in columns.items()]
        paired = difference(figures(found, f1), reference)
        alone = row.method in (REFERENCE, BASELINE)
        cells.append("" if alone else spread(paired, 4, signed=True))
        minutes = statistics.mean(r["seconds"] for r in found.values()) / 60
        seeds = f"{len(found)} of {row.seeds}" if len(found) < row.seeds else str(len(found))
        rows.append([title, *cells, f"{minutes:.1f}", seeds])
    header = ["method", *columns, "F1, paired", "minutes", "seeds"]
    if dataset == "vgg":
        place = [header.index(name) for name in ("F1 components", "MAE")]
        for title, number, *values in _QUOTED_VGG:
            quoted = [f"{title}, {number} labelled", *[""] * (len(header) - 1)]
            for at, value, digits in zip(place, values, (4, 1), strict=True):
                quoted[at] = f"{value:.{digits}f}"
            rows.append(quoted)
    used = [i for i in range(len(header)) if i == 0 or any(r[i] for r in rows)]
    return as_table([header[i] for i in used], [[r[i] for i in used] for r in rows])


Column = Callable[[Result], float | None]


def column_of(test_set: str, rule: str, *keys: str) -> Column:
    """What a column takes of a result; None where it does not have it. The rule '' is the run's."""

    def value(result: Result) -> float | None:
        found = result["sets"].get(test_set, {}).get(rule or result["rule"])
        for key in keys:
            found = None if found is None else found.get(key)
        return found

    return value


def _columns(test_set: str, *, volumes: bool) -> dict[str, Column]:
    """The columns of a table by their title."""
    if volumes:
        scores = {
            "F1 by distance": column_of(test_set, "", "f1"),
            "F1 inside the cell": column_of(test_set, "", "inside_cell", "f1"),
            "F1 fidt": column_of(test_set, "fidt", "f1"),
        }
    else:
        rules = ("peaks", "components", "fidt")
        scores = {f"F1 {rule}": column_of(test_set, rule, "f1") for rule in rules}
    counts = {
        "MAE": column_of(test_set, "", "mae"),
        "MAE by integral": column_of(test_set, "integral", "mae"),
    }
    return {**scores, **counts}


def _rows(results: Mapping[str, Result], dataset: str, labelled: int) -> list[Row]:
    """The rows of a table in the order of `METHODS`, with the chosen one of the Gaussians."""
    rows = {row.method: row for row in ROWS if (row.dataset, row.labelled) == (dataset, labelled)}
    chosen = chosen_gaussian(results, dataset, labelled)
    left_out = {"gaussian", "gaussian_sigma2"} - {chosen}
    return [rows[method] for method in METHODS if method in rows and method not in left_out]


def _notes(results: Mapping[str, Result], dataset: str, labelled: int, test_set: str) -> list[str]:
    """Where quoted rows are from; how the sigma and the baseline's filter were chosen."""
    notes = []
    if dataset == "vgg":
        notes.append("Quoted rows are the paper's Table 2; the paper detects by components.")
    sigmas = {
        method: found[0]
        for method in ("gaussian", "gaussian_sigma2")
        if 0 in (found := _cells(results, dataset, method, labelled))
    }
    if len(sigmas) == 2:
        reached = " and ".join(
            f"{training_f1(r):.4f} with {METHODS[m].title.split(', ')[1]}"
            f" (test {r['sets'][test_set][r['rule']]['f1']:.4f})"
            for m, r in sigmas.items()
        )
        notes.append(f"The Gaussian's sigma is chosen on the training images, F1 {reached}.")
    for result in _cells(results, dataset, BASELINE, labelled).values():
        c = result["chosen"]
        kinds = ", ".join(
            f"{k['intensities']} {k['f1_on_training_images']:.3f} / {k['f1'][test_set]:.3f}"
            for k in result["each_kind"]
        )
        notes.append(
            f"The difference of Gaussians, chosen on the training images: sigma {c['sigma']:g},"
            f" {'bright' if c['bright'] else 'dark'} cells, intensities '{c['intensities']}'. F1 on"
            f" training / test images of the best filter of each kind of intensities: {kinds}."
        )
    return notes


def over_labels(results: Mapping[str, Result]) -> dict[str, dict[int, Figures]]:
    """F1 on VGG's test images: method -> labelled images -> seed."""
    column = column_of("test", "", "f1")
    found: dict[str, dict[int, Figures]] = {}
    for method in (REFERENCE, FOCAL):
        numbers = {r.labelled for r in ROWS if (r.dataset, r.method) == ("vgg", method)}
        found[method] = {n: figures(_cells(results, "vgg", method, n), column) for n in numbers}
    return found


def _table_over_labels(results: Mapping[str, Result]) -> str:
    found = over_labels(results)
    plain, focal = found[REFERENCE], found[FOCAL]
    rows = []
    for n in sorted(plain):
        apart = spread(difference(focal[n], plain[n]), 4, signed=True)
        seeds = f"{len(plain[n])}, {len(focal[n])}"
        scores = [spread(f1[n], 4) or "not run" for f1 in (plain, focal)]
        rows.append([str(n), *scores, apart, seeds])
    titles = [f"F1, {METHODS[m].title[0].lower()}{METHODS[m].title[1:]}" for m in found]
    return as_table(["labelled", *titles, "paired", "seeds"], rows)


def _cells(
    results: Mapping[str, Result], dataset: str, method: str, labelled: int
) -> dict[int, Result]:
    """Seed -> result of a row."""
    key = (dataset, method, labelled)
    found = [r for r in results.values() if (r["dataset"], r["method"], r["labelled"]) == key]
    return {r["seed"]: r for r in sorted(found, key=lambda r: r["seed"])}


def figures(found: Mapping[Any, Result], column: Column) -> Figures:
    """What the results of some seeds, or draws and seeds, have in a column."""
    values = {seed: column(result) for seed, result in found.items()}
    return {seed: value for seed, value in values.items() if value is not None}


def difference(ours: Figures, reference: Figures) -> Figures:
    """Seed by seed, of the seeds that both have."""
    return {seed: ours[seed] - reference[seed] for seed in ours if seed in reference}


def spread(values: Figures, digits: int, *, signed: bool = False) -> str:
    """Mean ± sample standard deviation; the value alone if it is one, '' if there is none."""
    if not values:
        return ""
    mean = f"{statistics.mean(values.values()):{'+' if signed else ''}.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values.values()):.{digits}f}"


def _digits(column: str) -> int:
    return 4 if column.startswith("F1") else 1


def as_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
