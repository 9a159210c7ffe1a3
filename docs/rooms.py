"""Draws docs/rooms.svg: the rooms of cellcount_jax and the imports between them.

    python docs/rooms.py

The arrows come from the import statements of the source. A room stands one floor above the highest
room that it imports from. An arrow is left out where others lead to the same room on a longer way.
"""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cellcount_jax"

# Room -> its column in the picture, and its content; the order of floors is computed.
PLACES = {
    "commands": (2.4, "cli.py, main.py"),
    "plugin": (0.0, "counting in napari"),
    "label": (1.9, "dots made by hand"),
    "training": (3.0, "losses, batches, the loop"),
    "counting": (1.0, "files to counts"),
    "evaluation": (3.0, "matching, scores"),
    "inference": (0.6, "a model, tiles, the cells"),
    "maps": (0.95, "dots to maps and back"),
    "report": (1.95, "pages, pictures, charts"),
    "data": (3.0, "labelled images"),
    "network": (0.0, "SAU-Net, convolutions"),
    "images": (1.95, "files to arrays, any size"),
    "settings": (1.2, "config, variants, errors, ..."),
}
WIDTH, HEIGHT, COLUMN, FLOOR = 190, 44, 216, 88


def room_of(module: str) -> str:
    """The room of a module; the files beside the rooms are two more of them."""
    first = module.split(".")[0]
    if (PACKAGE / first).is_dir():
        return first
    return "commands" if first in ("__main__", "cli", "completion", "main") else "settings"


def imports() -> dict[str, set[str]]:
    """Room -> the rooms that it imports from."""
    found: dict[str, set[str]] = {name: set() for name in PLACES}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())) if module != "__init__" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE.name):
                inner = (node.module or "")[len(PACKAGE.name) + 1 :]
                for name in [inner] if inner else [alias.name for alias in node.names]:
                    found[room_of(module)].add(room_of(name))
    return {room: others - {room} for room, others in found.items()}


def drawing(graph: dict[str, set[str]]) -> str:
    """The picture as SVG text, from the rooms' imports."""
    floor: dict[str, int] = {}
    reach: dict[str, set[str]] = {}
    for room in graphlib.TopologicalSorter(graph).static_order():
        floor[room] = 1 + max((floor[other] for other in graph[room]), default=-1)
        reach[room] = graph[room].union(*(reach[other] for other in graph[room]))
    top = max(floor.values())
    x = {room: 110 + column * COLUMN for room, (column, _) in PLACES.items()}
    y = {room: 40 + (top - floor[room]) * FLOOR for room in graph}
    parts = []
    for room, others in graph.items():
        for other in sorted(others - set().union(*(reach[near] for near in others))):
            parts.append(
                f'<line stroke="#555" x1="{x[room]:g}" y1="{y[room] + HEIGHT / 2:g}"'
                f' x2="{x[other]:g}" y2="{y[other] - HEIGHT / 2 - 3:g}" marker-end="url(#tip)"/>'
            )
        parts.append(
            f'<rect x="{x[room] - WIDTH / 2:g}" y="{y[room] - HEIGHT / 2:g}" width="{WIDTH}"'
            f' height="{HEIGHT}" rx="6" fill="#e8f0f8" stroke="#4a6a8a"/>'
            f'<text x="{x[room]:g}" y="{y[room] - 3}" font-weight="bold">{room}</text>'
            f'<text x="{x[room]:g}" y="{y[room] + 14}" font-size="12">{PLACES[room][1]}</text>'
        )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="880" height="{80 + top * FLOOR}"'
        ' font-family="sans-serif" font-size="15" text-anchor="middle">\n'
        '<marker id="tip" markerWidth="9" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L9,4 L0,8 z" fill="#555"/></marker>\n'
        '<rect width="100%" height="100%" fill="#fff"/>'
    )
    return "\n".join([head, *parts, "</svg>\n"])


if __name__ == "__main__":
    (ROOT / "docs" / "rooms.svg").write_text(drawing(imports()))
