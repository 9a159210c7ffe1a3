"""The size of cells, measured in images with discs and balls of a known one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cellcount_jax.images import cell_size
from cellcount_jax.images.cell_size import measure_diameter

EDGES: Any = {2: (0.5, 0.5), 3: (2.0, 0.5, 0.5)}


def balls(shape: tuple[int, ...], *, diameter: float, step: float, seed: int = 0) -> np.ndarray:
    """Bright discs or balls of a diameter (um), apart by `step`, with noise."""
    edges = np.array(EDGES[len(shape)])
    away = np.zeros(shape)
    for axis, (size, edge) in enumerate(zip(shape, edges, strict=True)):
        at = (np.arange(size) * edge) % step - step / 2
        away += np.square(at).reshape([-1 if a == axis else 1 for a in range(len(shape))])
    noise = np.random.default_rng(seed).normal(0, 5, shape)
    values: np.ndarray = np.where(away <= (diameter / 2) ** 2, 300.0, 100.0) + noise
    return values


def measured(values: np.ndarray) -> float | None:
    return measure_diameter(lambda region: values[region], values.shape, EDGES[values.ndim])


@pytest.mark.parametrize("diameter", [6.0, 12.0, 22.0])
def test_discs(diameter: float) -> None:
    values = balls((300, 300), diameter=diameter, step=30.0)
    assert measured(values) == pytest.approx(diameter, rel=0.05)
    assert measured(-values) == pytest.approx(diameter, rel=0.05)  # dark ones
    assert measured(7 * values + 1000) == pytest.approx(measured(values))


@pytest.mark.parametrize("diameter", [8.0, 14.0])
def test_balls_between_planes_that_are_far_apart(diameter: float) -> None:
    assert measured(balls((40, 120, 120), diameter=diameter, step=20.0)) == pytest.approx(
        diameter, rel=0.15
    )


def test_a_large_volume_is_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    values = balls((40, 120, 120), diameter=8.0, step=11.0)
    read: list[int] = []

    def part(region: Any) -> np.ndarray:
        read.append(values[region].size)
        return values[region]

    monkeypatch.setattr(cell_size, "_BOX_VOXELS", 64_000)
    found = measure_diameter(part, values.shape, EDGES[3])
    assert found == pytest.approx(8.0, rel=0.25)
    assert len(read) == 4 and max(read) <= 80_000


@pytest.mark.parametrize("shape", [(200, 200), (20, 60, 60)])
def test_without_cells(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    for values in (np.full(shape, 7.0), rng.normal(100, 9, shape), rng.integers(0, 99, shape)):
        assert measured(np.asarray(values, float)) is None
