"""cellfinder's detection for `peers.py`; runs in its own environment.

Without the network that classifies its candidates, whose weights it downloads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from peer_loop import serve


def find(volume: np.ndarray, spacing: Sequence[float], settings: Mapping[str, Any]) -> np.ndarray:
    """The candidates for cells, all with the score 1; what is too large for cells is left out."""
    # Its own processes import this file: not at the top, where each of them would pay for it.
    from brainglobe_utils.cells.cells import Cell
    from cellfinder.core.detect.detect import main as detect

    cells = detect(volume, voxel_sizes=tuple(spacing), n_free_cpus=0, **settings)
    kept = [cell for cell in cells if cell.type != Cell.ARTIFACT]
    return np.array([(cell.z, cell.y, cell.x, 1.0) for cell in kept]).reshape(-1, 4)


if __name__ == "__main__":
    serve(find)
