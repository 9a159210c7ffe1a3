"""What tests of maps share."""

from __future__ import annotations

import pytest

from cellcount_jax.maps import maxima


@pytest.fixture(params=[0.0, 1.0], ids=["in the map", "voxel by voxel"])
def both_searches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plateaus are found in one way, whatever their share of the map's voxels."""
    monkeypatch.setattr(maxima, "_FEW", request.param)
