"""The results of `few_labels.py` as tables in RESULTS.md and a figure."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ablation_cells import load_results
from ablation_figure import Panel
from ablation_report import Figures, as_table, difference, draw, effort, figures, insert, spread
from few_labels_cells import ALL, METHODS, PARTS, REFERENCE, RULES, SOURCES, best_rule, cells

BEGIN = "<!-- few labels: begin -->"
END = "<!-- few labels: end -->"

Result = Mapping[str, Any]
_TITLES = {
    "test": "Scored on the test images",
    "develop": "Scored on training images that are labelled in no cell",
}


def publish(results: Path, tables: Path) -> str:
    """Writes the tables between two markers of a Markdown file, and the figure.

    Args:
      results: folder of the cells' files; the figure is written beside it, as few_labels.png.
      tables: the Markdown file; see `ablation_report.insert`.

    Returns:
      What has been written, in a line.
    """
    found = load_results(results)
    figure = results.parent / "few_labels.png"
    said = draw(panels(found), figure)
    link = os.path.relpath(figure, tables.parent) if figure.exists() else ""
    insert(tables, as_markdown(found, figure=link), begin=BEGIN, end=END)
    return ", ".join([str(tables), *said])


def as_markdown(results: Mapping[str, Result], *, figure: str = "") -> str:
    """All tables; `figure` is the path of the figure from where they stand."""
    parts = [
        "## Few labelled images",
        "    python benchmarks/few_labels.py [--develop]",
        "F1 by the rule (peaks or components) that is better on the labelled images of the run,"
        " which choose its threshold too, and MAE of the counts by this rule: mean ± standard"
        " deviation over draws of the labelled images and seeds. 'Paired': F1 minus that of the"
        " labelled images alone with the same draw and seed.",
    ]
    if not results:
        return "\n\n".join([*parts, "No cell is run."])
    parts.append(effort(results))
    for part in PARTS:
        found = {name: r for name, r in results.items() if r["part"] == part}
        if found:
            parts += [f"### {_TITLES[part]}", _table(found, part, _scores)]
            if any(r["method"] != REFERENCE for r in found.values()):
                parts += ["F1, paired:", _table(found, part, _paired)]
            parts += ["F1 by peaks / by components; MAE of the integral:"]
            parts += [_table(found, part, _rules)]
        if part == "test" and figure:
            parts.append(f"![F1 against the number of labelled images]({figure})")
    return "\n\n".join(parts)


# The text for the results of a method with so many labelled images, by draw and seed, beside those
# of the reference; and how many there are to be.
_Entry = Callable[[Mapping[Any, Result], Mapping[Any, Result], int], str]


def _table(results: Mapping[str, Result], part: str, entry: _Entry) -> str:
    """Data set and method a row, number of labelled images a column."""
    by_row = _grouped(results)
    numbers = sorted({r["labelled"] for r in results.values()}, key=lambda n: (n == ALL, n))
    expected: dict[tuple[str, str, int], int] = {}
    for cell in cells(part=part):
        key = (cell.dataset, cell.method, cell.labelled)
        expected[key] = expected.get(key, 0) + 1
    rows = []
    for dataset, source in SOURCES.items():
        for method, about in METHODS.items():
            found = {n: by_row.get((dataset, method, n), {}) for n in numbers}
            texts = [
                entry(done, by_row.get((dataset, REFERENCE, n), {}), expected[dataset, method, n])
                if done
                else ""
                for n, done in found.items()
            ]
            if any(texts):
                seconds = [r["seconds"] for done in found.values() for r in done.values()]
                minutes = f"{statistics.mean(seconds) / 60:.1f}"
                rows.append([source.title, about.title, *texts, minutes])
    header = ["images", "method", *("all" if n == ALL else f"{n} labelled" for n in numbers)]
    return as_table([*header, "minutes"], rows)


def _scores(done: Mapping[Any, Result], _: Mapping[Any, Result], expected: int) -> str:
    missing = f" ({len(done)} of {expected})" if len(done) < expected else ""
    mae = spread(figures(done, lambda r: _score(r, best_rule(r), "mae")), 1)
    return f"{spread(best_f1(done), 3)}, MAE {mae}{missing}"


def _paired(done: Mapping[Any, Result], reference: Mapping[Any, Result], _: int) -> str:
    if done.keys() == reference.keys() and all(done[key] is reference[key] for key in done):
        return ""
    return spread(difference(best_f1(done), best_f1(reference)), 3, signed=True)


def _rules(done: Mapping[Any, Result], _: Mapping[Any, Result], __: int) -> str:
    by_rule = [
        spread(figures(done, lambda r, rule=rule: _score(r, rule, "f1")), 3) for rule in RULES
    ]
    integral = spread(figures(done, lambda r: _score(r, "integral", "mae")), 1)
    return " / ".join(by_rule) + (f"; {integral}" if integral else "")


def best_f1(found: Mapping[Any, Result]) -> Figures:
    """F1 by the best rule of each result."""
    return figures(found, lambda r: _score(r, best_rule(r), "f1"))


def _score(result: Result, rule: str, name: str) -> float | None:
    """A score on the images that the cell is scored on, which the data set calls its test set."""
    value: float | None = result["sets"]["test"].get(rule, {}).get(name)
    return value


def _grouped(results: Mapping[str, Result]) -> dict[tuple[str, str, int], dict[Any, Result]]:
    """Data set, method and number -> draw and seed -> result."""
    found: dict[tuple[str, str, int], dict[Any, Result]] = {}
    for r in sorted(results.values(), key=lambda r: (r["draw"], r["seed"])):
        row = found.setdefault((r["dataset"], r["method"], r["labelled"]), {})
        row[r["draw"], r["seed"]] = r
    return found


def panels(results: Mapping[str, Result]) -> list[Panel]:
    """A diagram for each data set with several numbers of labelled images, of the test images."""
    by_row = _grouped({name: r for name, r in results.items() if r["part"] == "test"})
    found = []
    for dataset, source in SOURCES.items():
        curves: dict[str, dict[int, list[float]]] = {}
        for method, about in METHODS.items():
            curve = {
                n: list(best_f1(by_row[dataset, method, n]).values())
                for n in source.labelled
                if n != ALL and (dataset, method, n) in by_row
            }
            if curve:
                curves[about.title] = curve
        every = list(best_f1(by_row.get((dataset, REFERENCE, ALL), {})).values())
        level = ("all images labelled", statistics.mean(every)) if every else None
        labelled = "labelled images, the others unlabelled"
        title = f"{source.title}: mean and standard deviation over draws and seeds"
        found.append(Panel(title, labelled, curves, level))
    return found
