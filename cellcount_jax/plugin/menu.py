"""What napari's menus open; napari and Qt are imported when they do."""

from __future__ import annotations

from typing import Any

import numpy as np

_SEED = 1
_VOLUME = (24, 128, 128)
_VOXEL_UM = (6.0, 1.62, 1.62)


def count_widget() -> Any:
    """The panel "Count cells" for the viewer that asks for it, one a viewer."""
    import napari
    from qtpy.QtWidgets import QApplication

    from cellcount_jax.plugin.count_panel import CountPanel

    viewer = napari.current_viewer()
    for widget in QApplication.allWidgets():
        if isinstance(widget, CountPanel) and widget.viewer is viewer:
            return widget  # its dock was closed
    return CountPanel(viewer)


def sample_image() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """A generated image of 60 nuclei, for `nuclei2d`, as a layer of napari."""
    image = _scene((256, 256), radius=6.0, count_range=(60, 90))
    return [(image, {"name": "nuclei"}, "image")]


def sample_volume() -> list[tuple[np.ndarray, dict[str, Any], str]]:
    """A generated volume of 52 nuclei, for `nuclei3d`, as a layer of napari."""
    image = _scene(
        _VOLUME,
        spacing=_VOXEL_UM,
        radius=8.0,
        count_range=(40, 60),
        clustering=0.0,
        min_distance=2.0,
    )
    return [(image, {"name": "nuclei in 3D", "scale": _VOXEL_UM, "units": ("um",) * 3}, "image")]


def _scene(shape: tuple[int, ...], **options: Any) -> np.ndarray:
    """`(*shape,)` uint16 grey levels of `scene.generate`."""
    import jax

    from cellcount_jax import cache
    from cellcount_jax.data import scene

    cache.keep_programs()
    key = jax.random.key(_SEED if len(shape) == 3 else 3)
    image = scene.generate(key, shape, **options)[0]
    return np.rint(np.asarray(image)[..., 0]).astype(np.uint16)
