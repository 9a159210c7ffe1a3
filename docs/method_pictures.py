"""Makes the pictures of docs/method.md, docs/pictures/method_*.png, of what is computed here.

Run it from the repository's root, with the extra `test` (matplotlib):

    python docs/method_pictures.py
"""

from __future__ import annotations

import functools
import runpy
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from scipy import ndimage

import cellcount_jax
from cellcount_jax.config import default_config, strides
from cellcount_jax.data.scene import generate
from cellcount_jax.inference.plan import make_plan
from cellcount_jax.training.losses import ramp_up

FOLDER = Path(__file__).with_name("pictures")
FIGURE1: dict[str, Any] = runpy.run_path(str(FOLDER.parents[1] / "benchmarks" / "figure1.py"))
BLUE, ORANGE, GREEN, RED = "#0072b2", "#d55e00", "#009e73", "#cc3311"


def kernels() -> None:
    """Two touching cells: the distance, both kernels, and a line through the dots."""
    image, dots = FIGURE1["touching_cells"]()
    shape, sigma = image.shape, FIGURE1["SIGMA"]
    seeds = np.zeros(shape, bool)
    seeds[tuple(np.floor(dots + 0.5).astype(int).T)] = True
    distance = np.asarray(cellcount_jax.distance_transform(jnp.asarray(seeds)))
    points = jnp.asarray(dots)
    inverse = np.asarray(cellcount_jax.inverse_distance_map(points, shape))
    gaussian = np.asarray(cellcount_jax.gaussian_density_map(points, shape, sigma=sigma))

    figure, axes = plt.subplots(
        1, 5, figsize=(9.5, 2.4), layout="constrained", width_ratios=[1, 1, 1, 1, 1.5]
    )
    shown = {
        "image and dots": (image, "gray"),
        "distance to a dot": (distance, "viridis_r"),
        f"Gaussian, σ = {sigma:g}": (gaussian, "magma"),
        "inverse distance": (inverse, "magma"),
    }
    for axis, (title, (values, colours)) in zip(axes, shown.items(), strict=False):
        axis.imshow(values, cmap=colours)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    axes[0].plot(*dots.T[::-1], "+", color=ORANGE, ms=10, mew=2)
    # Along the line through the two dots, a cell's width beyond them.
    middle, along = dots.mean(axis=0), dots[1] - dots[0]
    at = np.linspace(-1.6, 1.6, 129)
    line = (middle + at[:, None] * along).T
    position = at * np.linalg.norm(along)
    for values, colour, label in (
        (gaussian / gaussian.max(), BLUE, "Gaussian"),
        (inverse, ORANGE, "inverse distance"),
    ):
        along_line = ndimage.map_coordinates(values, line, order=1)
        axes[4].plot(position, along_line, color=colour, label=label)
    for end in (-0.5, 0.5):
        axes[4].axvline(end * np.linalg.norm(along), color="gray", lw=0.8, ls=":")
    axes[4].set_title("along both dots", fontsize=9)
    axes[4].set_xlabel("pixels", fontsize=8)
    axes[4].tick_params(labelsize=8)
    axes[4].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.3), ncols=2)
    save(figure, "kernels")


def network() -> None:
    """The encoder, the noise and the decoder, with the sizes that the network really has."""
    config = default_config()
    model = cellcount_jax.SAUNet(features=config.model.features, strides=strides(config))
    image = jnp.zeros((1, *config.train.crop, 1))
    encode = functools.partial(model.init_with_output, method=cellcount_jax.SAUNet.encode)
    levels, _ = jax.eval_shape(encode, jax.random.key(0), image)

    figure, axis = plt.subplots(figsize=(9.2, 3.9))
    box = {"ha": "center", "va": "center", "fontsize": 8}
    for number, level in enumerate(levels):
        size = " x ".join(map(str, level.shape[1:3]))
        last = number == len(levels) - 1
        for side, name in ((-1, "encoder"), (1, "decoder")):
            if last and side == 1:
                continue
            x, width = (0 if last else side * (5 - number)), (2.6 if last else 2.4)
            colour = GREEN if last else BLUE if side < 0 else ORANGE
            axis.add_patch(
                plt.Rectangle((x - width / 2, -number - 0.3), width, 0.6, color=colour, alpha=0.25)
            )
            label = "encoder + self-attention" if last else name
            axis.text(x, -number, f"{label}\n{size}, {level.shape[-1]} channels", **box)
        if not last:
            arrow(axis, (-(5 - number) + 1.2, -number), (5 - number - 1.2, -number), "gray")
            down = (0 if number == len(levels) - 2 else -(4 - number)) - 0.4
            up = (0 if number == len(levels) - 2 else 4 - number) + 0.4
            arrow(axis, (-(5 - number), -number - 0.3), (down, -number - 0.7), "black")
            arrow(axis, (up, -number - 0.7), (5 - number, -number - 0.3), "black")
    bottom = 1 - len(levels)
    axis.text(0, 0.12, "each level is given on, without noise", color="gray", **box)
    axis.text(
        1.95,
        bottom - 0.02,
        "noise here:\nfeatures of images without dots\ntimes U(0, 2)",
        color=RED,
        **{**box, "ha": "left"},
    )
    arrow(axis, (1.9, bottom), (1.35, bottom), RED)
    axis.text(-5, 0.5, "image", **box)
    axis.text(5, 0.5, "map", **box)
    axis.set_xlim(-6.3, 6.3)
    axis.set_ylim(bottom - 0.6, 0.75)
    axis.set_axis_off()
    save(figure, "network")


def arrow(axis: Any, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    style = {"arrowstyle": "->", "color": colour, "lw": 1.0}
    axis.annotate("", xy=end, xytext=start, arrowprops=style)


def maxima() -> None:
    """An image, the map of a bundled model, the focal weight on it, and the cells."""
    scene = functools.partial(generate, count_range=(14, 14), radius=6.0, min_distance=1.3)
    drawn, dots, *_ = map(np.asarray, scene(jax.random.key(5), (96, 96)))
    image = drawn[..., 0]
    model = cellcount_jax.load_model("nuclei2d")
    found = model.predict_maps(image[..., None]).location
    cells = model.predict(image, diameter=model.config.data.diameter)
    threshold = model.thresholds["peaks"]
    weight = np.asarray(cellcount_jax.focal_weight(jnp.asarray(found)[None, ..., None]))[0, ..., 0]

    figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.6))
    shown = {
        "image": (image, "gray"),
        "map of the network": (found, "magma"),
        "focal weight α": (weight, "viridis"),
        f"maxima above {threshold:.2f}: {len(cells.points)} of {len(dots)} cells": (image, "gray"),
    }
    for axis, (title, (values, colours)) in zip(axes, shown.items(), strict=True):
        axis.imshow(values, cmap=colours)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    axes[3].plot(*cells.points.T[::-1], "o", mfc="none", mec="lime", ms=11, mew=1.5)
    save(figure, "maxima")


def ramp() -> None:
    """The weight of the consistency loss over the training."""
    share = np.linspace(0, 1, 201)
    length = default_config().consistency.ramp_up
    figure, axis = plt.subplots(figsize=(4.5, 2.2))
    axis.plot(share, [float(ramp_up(float(at), length)) for at in share], color=BLUE)
    axis.set_xlabel("share of the training", fontsize=8)
    axis.set_ylabel("w", fontsize=8)
    axis.tick_params(labelsize=8)
    save(figure, "ramp")


def tiles() -> None:
    """The tiles of a large image, and what is read for one of them."""
    model = cellcount_jax.load_model("nuclei2d")
    model = model.with_settings({"predict.max_voxels": 700_000})
    shape = (2048, 2560)
    plan = make_plan(model.config, shape)
    chosen = next(core for core in plan.cores if min(part.start for part in core) > 0)
    figure, axis = plt.subplots(figsize=(6, 4.2))
    for core in plan.cores:
        axis.add_patch(rectangle(core, ec="black", fc="none", lw=1))
    needs = plan.needs(chosen, ())
    blocks = [
        slice(*(edge * step for edge in (need.blocks.start, need.blocks.stop)))
        for need, step in zip(needs, plan.stride, strict=True)
    ]
    window = tuple(need.window for need in needs)
    axis.add_patch(rectangle(window, ec="none", fc=ORANGE, alpha=0.35))
    axis.add_patch(rectangle(tuple(blocks), ec=ORANGE, fc="none", lw=1.5, ls="--"))
    axis.add_patch(rectangle(chosen, ec=BLUE, fc=BLUE, alpha=0.5, lw=2))
    axis.set_title(
        f"{len(plan.cores)} tiles of {shape[0]} x {shape[1]} pixels: the map of the blue one is\n"
        "computed from the orange part, the attention blocks around it (dashed) and a margin",
        fontsize=9,
    )
    axis.set_xlim(-20, shape[1] + 20)
    axis.set_ylim(shape[0] + 20, -20)
    axis.set_aspect("equal")
    axis.tick_params(labelsize=8)
    save(figure, "tiles")


def rectangle(region: tuple[slice, ...], **style: Any) -> Any:
    y, x = region
    return plt.Rectangle((x.start, y.start), x.stop - x.start, y.stop - y.start, **style)


def save(figure: Any, name: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"method_{name}.png"
    figure.savefig(path, dpi=100, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    for draw in (kernels, network, maxima, ramp, tiles):
        draw()
