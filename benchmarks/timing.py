"""What the benchmarks share: timing side by side, tables, and results as JSON."""

from __future__ import annotations

import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from cellcount_jax.images import files
from cellcount_jax.machine import core_count, processor_facts

# Threads of the one side may look for work a little longer; they are not to slow the other.
_REST_S = 0.05


def interleaved(
    sides: Mapping[str, Callable[[], Any]], *, repeats: int, warm_up: int = 2
) -> dict[str, float]:
    """Median seconds of each side, timed in turn so that all see the same machine; see `series`."""
    seconds = series(sides, repeats=repeats, warm_up=warm_up)
    return {name: statistics.median(values) for name, values in seconds.items()}


def series(
    sides: Mapping[str, Callable[[], Any]], *, repeats: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of each side, call by call, in turn.

    Args:
      sides: name -> function that returns when its work is done.
      repeats: timed calls of each.
      warm_up: calls of each before, which compile.
    """
    for function in sides.values():
        for _ in range(warm_up):
            function()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, function in sides.items():
            time.sleep(_REST_S)
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def processor() -> str:
    """The name of the processor and, on x86, of its widest vectors: times depend on both."""
    pairs = (fact.partition(":") for fact in processor_facts())
    said = {name.strip(): value.strip() for name, _, value in pairs}
    flags = said.get("flags", "").split()
    widest = next((name for name in ("avx512f", "avx2") if name in flags), None)
    name = said.get("model name") or platform.processor() or platform.machine()
    return f"{name} ({widest})" if widest else name


def machine(*packages: str) -> dict[str, Any]:
    """What figures depend on: processor, cores, devices, versions."""
    names = ("cellcount_jax", "jax", "jaxlib", "numpy", *packages)
    return {
        "cores": core_count(),
        "processor": processor(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }


def tell(row: Mapping[str, Any]) -> None:
    """Prints a row as soon as it is measured."""
    print(", ".join(f"{name} {_text(value)}" for name, value in row.items()), flush=True)


def publish(
    rows: Sequence[Mapping[str, Any]],
    output: Path | None,
    *,
    packages: Sequence[str] = (),
    verdict: str | None = None,
) -> None:
    """Prints a table of the rows, and writes it with the machine and the command as JSON.

    Args:
      rows: all with the same keys; None stands for what does not apply.
      output: the JSON file; None for none.
      packages: further ones whose versions the figures depend on.
      verdict: what it comes to, in one line, written too and printed last.
    """
    header = list(rows[0])
    cells = [header, *([_text(row[name]) for name in header] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    if output is not None:
        content = {
            "command": shlex.join(["python", *sys.argv]),
            "machine": machine(*packages),
            "rows": list(rows),
        }
        if verdict is not None:
            content["verdict"] = verdict
        files.write_json(output, content)
        print(f"written to {output}")
    if verdict is not None:
        print(verdict)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
