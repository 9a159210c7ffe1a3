"""What tests of maps share."""

from __future__ import annotations

import pytest

from cellcount_jax.maps import maxima


@pytest.fixture(params=[0.0, 1.0], ids=["as a whole", "voxel by voxel"])
def both_searches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map is searched in one way, whatever the share of its voxels above the threshold."""
    monkeypatch.setattr(maxima, "_FEW", request.param)
