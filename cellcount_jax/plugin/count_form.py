"""What is chosen before a count in napari: image, part of it, model, size and light of cells."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from napari.layers import Image, Labels
from qtpy.QtCore import QEvent, QObject
from qtpy.QtCore import Signal as QtSignal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLineEdit,
    QWidget,
)

from cellcount_jax.errors import InputError, in_words
from cellcount_jax.inference.model_file import load_model
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.label.window.model_box import ModelBox, cut_long_names
from cellcount_jax.plugin.layer_image import (
    LayerImage,
    image_of_layer,
    likely_depth,
    mask_of_layer,
    spatial_axes,
    voxel_edges,
)

_EVERYWHERE = "everywhere"
_CHANNELS = ("all", "red", "green", "blue")
_LIGHT = {"bright on dark": None, "dark on bright": True, "not checked": False}


@dataclasses.dataclass(frozen=True, eq=False)
class Asked:
    """A count that is asked for.

    Attributes:
      model: that counts.
      name: of the image's layer.
      part: of the layer.
      inside: name of the layer of labels in which cells are counted; '' = everywhere.
      place: where the layer lies: `scale`, `translate` and the like.
      spacing: `(D,)` voxel edges in micrometres; None = unknown.
      options: of `seen.look`.
    """

    model: TrainedModel
    name: str
    part: LayerImage
    inside: str
    place: dict[str, Any]
    spacing: tuple[float, ...] | None
    options: dict[str, Any]


class CountForm(QWidget):
    """The choices, of which `asked` makes a count.

    Attributes:
      image: the box of image layers.
      model: the box of models.
      diameter: the box of the cells' diameter, for images; 0: found out.
      voxels: the field of the voxel size, z, y, x in micrometres.
      light: the box that says whether cells are bright.
      channel: the box of channels, of images in colours.
      depth: the box of axes that may have the planes of a volume, of layers with several.
      inside: the box of label layers in which cells are counted.
      thorough: the box for the mean over mirror images.
    """

    changed = QtSignal()
    failed = QtSignal(str)  # why a model cannot be read

    def __init__(self, viewer: Any) -> None:
        super().__init__()
        self._viewer = viewer
        self._chosen_by_hand = False
        self.image, self.model, self.light = QComboBox(), ModelBox(), QComboBox()
        self.channel, self.depth, self.inside = QComboBox(), QComboBox(), QComboBox()
        self.thorough = QCheckBox("thorough")
        self.thorough.setToolTip(
            "the mean over mirror images, 4 times the work for images and 8 for volumes;"
            " the model says what is usual"
        )
        self._shown_model = ""
        cut_long_names(self.image)
        cut_long_names(self.inside)
        self.channel.addItems(_CHANNELS)
        self.depth.setToolTip("of the other axes what is shown is counted: move their sliders")
        self.inside.setToolTip("a layer of labels: cells are counted where it is painted")
        self.light.addItems(_LIGHT)
        self.light.setToolTip("images that seem to be the other way round are refused")
        self.diameter = QDoubleSpinBox(decimals=1, maximum=1e4, singleStep=1)
        self.diameter.setSpecialValueText("found out")
        self.diameter.setSuffix(" pixels")
        self.diameter.setToolTip("of a cell, about; 0: measured, by models that can, or as trained")
        self.voxels = QLineEdit()
        self.voxels.setPlaceholderText("unknown")
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.addRow("image", self.image)
        self._form.addRow("channel", self.channel)
        self._form.addRow("planes along", self.depth)
        self._form.addRow("count inside", self.inside)
        self._form.addRow("model", self.model)
        self._form.addRow("cell diameter", self.diameter)
        self._form.addRow("voxel size (µm)", self.voxels)
        self._form.addRow("cells are", self.light)
        self._form.addRow("", self.thorough)
        boxes = (self.image, self.channel, self.depth, self.inside, self.model, self.light)
        leave_wheels(self, *boxes, self.diameter)
        self.image.currentIndexChanged.connect(self._image_chosen)
        self.model.activated.connect(self._model_activated)
        self.depth.activated.connect(lambda _: self._show_voxels())
        for event in (
            *(self.diameter.valueChanged, self.voxels.textEdited, self.thorough.clicked),
            *(box.activated for box in (self.light, self.channel, self.depth, self.inside)),
        ):
            event.connect(lambda _: self.changed.emit())
        for name in ("inserted", "removed", "reordered"):
            getattr(viewer.layers.events, name).connect(self._list_layers)
        self._list_layers()

    def asked(self) -> Asked:
        """The count that is chosen.

        Raises:
          InputError: there is no image, or no such model, or the fields do not fit them.
        """
        layer = self.image.currentData()
        if layer is None:
            raise InputError("There is no image: open one, or File > Open Sample > cellcount.")
        model = load_model(self.model.currentText())
        ndim = model.config.data.ndim
        spacing = _edges(self.voxels.text(), ndim)
        options: dict[str, Any] = {"invert": _LIGHT[self.light.currentText()]}
        if ndim == 2 and self.diameter.value():
            options["diameter"] = self.diameter.value()
        if spacing is not None and model.spacing_known:
            options["spacing"] = spacing
        if layer.rgb and self.channel.currentIndex():
            options["channel"] = self.channel.currentIndex() - 1
        if self.thorough.isChecked() != model.config.predict.flips:
            model = model.with_settings({"predict.flips": self.thorough.isChecked()})
        step = self._viewer.dims.current_step
        part = image_of_layer(layer, ndim=ndim, step=step, depth=self._depth(layer, ndim))
        inside = self.inside.currentData()
        if inside is not None:
            options["mask"] = mask_of_layer(inside, layer, part)
        names = ("scale", "translate", "rotate", "shear", "affine", "units")
        return Asked(
            model=model,
            name=layer.name,
            part=part,
            inside="" if inside is None else inside.name,
            place={name: getattr(layer, name) for name in names if hasattr(layer, name)},
            spacing=spacing,
            options=options,
        )

    def offer(self, model: str) -> None:
        """Puts a model of one's own into the box, and chooses it."""
        self.model.offer(model)
        self._chosen_by_hand = True
        self._show_fields()

    def _depth(self, layer: Any, ndim: int) -> int | None:
        """The axis of the planes that is chosen, of a layer that has several which may be it."""
        return self.depth.currentData() if ndim == 3 and layer.ndim > 3 else None

    def _list_layers(self, _: object = None) -> None:
        _fill(self.inside, [x for x in self._viewer.layers if isinstance(x, Labels)], _EVERYWHERE)
        chosen, active = self.image.currentData(), self._viewer.layers.selection.active
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image)]
        kept = [layer for layer in (chosen, active, *images[-1:]) if layer in images]
        _fill(self.image, images)
        self.image.blockSignals(True)
        if kept:
            self.image.setCurrentIndex(images.index(kept[0]))
        self.image.blockSignals(False)
        if kept[:1] != [chosen]:
            self._image_chosen()

    def _image_chosen(self, _: object = None) -> None:
        """Chooses a bundled model for the layer, unless one was chosen."""
        layer = self.image.currentData()
        if layer is not None and not self._chosen_by_hand:
            volume = "nuclei3d" if layer.ndim > 2 else "nuclei2d"
            self.model.setCurrentText("nuclei_he" if layer.rgb else volume)
        self._show_fields()

    def _model_activated(self, _: int) -> None:
        self.model.ask()
        self._chosen_by_hand = True
        self._show_fields()

    def _show_fields(self) -> None:
        """Shows what the model can be told, and the voxel size of the layer."""
        try:
            config = load_model(self.model.currentText()).config
        except (InputError, OSError) as error:
            self.failed.emit(in_words(error))
            return
        ndim, layer = config.data.ndim, self.image.currentData()
        if self._shown_model != self.model.currentText():
            self._shown_model = self.model.currentText()
            self.thorough.setChecked(config.predict.flips)
        self._form.setRowVisible(self.diameter, ndim == 2)
        self._form.setRowVisible(self.channel, layer is not None and layer.rgb)
        several = layer is not None and ndim == 3 and layer.ndim > 3
        self._form.setRowVisible(self.depth, several)
        self.depth.clear()
        if several:
            shape = (layer.data[0] if layer.multiscale else layer.data).shape[: layer.ndim]
            for axis, size in enumerate(shape[:-2]):
                self.depth.addItem(f"axis {axis}, {size} long", axis)
            self.depth.setCurrentIndex(likely_depth(shape))
        self._show_voxels(ndim)

    def _show_voxels(self, ndim: int = 3) -> None:
        """Shows the voxel size of the layer."""
        layer = self.image.currentData()
        edges = None if layer is None else voxel_edges(layer)
        known: Sequence[float] = ()
        if edges is not None and len(edges) >= ndim:
            axes = spatial_axes(layer, ndim=ndim, depth=self._depth(layer, ndim))
            known = [edges[axis] for axis in axes]
        self.voxels.setText(", ".join(f"{edge:.6g}" for edge in known))
        self.voxels.setToolTip(
            f"{', '.join('zyx'[-ndim:])}; the image is resampled to the voxels of the training,"
            " where these are known, and places are saved in µm too"
        )
        self.changed.emit()


def _fill(box: QComboBox, layers: Sequence[Any], *first: str) -> None:
    """Puts layers into a box, behind what stands first; what was chosen stays, if it is there."""
    chosen = box.currentData()
    box.blockSignals(True)
    box.clear()
    box.addItems(first)
    for layer in layers:
        box.addItem(layer.name, layer)
    if chosen in layers:
        box.setCurrentIndex(len(first) + layers.index(chosen))
    box.blockSignals(False)


class _Wheels(QObject):
    """Leaves a wheel over a box to what is around it: else it would edit unnoticed."""

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Qt's hook; whether an event was a wheel over a box without the focus."""
        if event.type() == QEvent.Type.Wheel and not watched.hasFocus():
            event.ignore()
            return True
        return False


def leave_wheels(parent: QWidget, *boxes: QWidget) -> None:
    """Makes a wheel change boxes only where they have the focus."""
    wheels = _Wheels(parent)
    for box in boxes:
        box.installEventFilter(wheels)


def _edges(text: str, ndim: int) -> tuple[float, ...] | None:
    """Voxel edges of a field; None where it is empty."""
    if not text.strip():
        return None
    try:
        edges = tuple(float(part) for part in text.split(","))
    except ValueError:
        edges = ()
    if len(edges) != ndim or not all(0 < edge < math.inf for edge in edges):
        axes = ", ".join("zyx"[-ndim:])
        raise InputError(f"voxel size {text!r}: {ndim} positive numbers of µm are needed ({axes})")
    return edges
