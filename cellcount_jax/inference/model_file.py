"""The file of a trained model: in a run's workdir, exported, or bundled with the package.

It is a zip archive of config.json and model.json, the network's variables as one .npy file each,
and a card in Markdown that describes the model. Reading it parses JSON and plain arrays; nothing
in it is ever executed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from cellcount_jax import config as settings
from cellcount_jax import validation
from cellcount_jax.errors import InputError
from cellcount_jax.images.files import check_file, replacing
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.inference.job import Model
from cellcount_jax.inference.model_archive import (
    VARIABLES,
    named,
    open_archive,
    read_arrays,
    read_json,
    read_member,
)
from cellcount_jax.inference.model_values import values_of
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.network.sau_net import initial_variables

MODEL_FILE = "model.zip"  # in the workdir of a run
_CONFIG, _MODEL, _CARD = "config.json", "model.json", "CARD.md"
_FOLDER = Path(__file__).parents[1] / "models"
# Fixed, so that archives of one content have the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
# The attributes of a model in model.json, beside its normalisation.
_STORED = ("step", "channels", "spacing", "spacing_known", "thresholds", "count_factor")


def load_model(source: str | Path) -> TrainedModel:
    """Reads a trained model.

    Args:
      source: the workdir of a finished run of `cellcount_jax.main`, a file that `export_model`
        wrote, or a name of `bundled_models`.

    Raises:
      InputError: it is none of these, or damaged.

    Examples:
      >>> from cellcount_jax import load_model
      >>> model = load_model("nuclei3d")
      >>> model.config.data.ndim, model.channels, model.spacing_known
      (3, 1, True)
    """
    return dataclasses.replace(_read_archive(model_path(source)), name=str(source))


def model_path(source: str | Path) -> Path:
    """The file that `load_model` reads.

    Raises:
      InputError: there is none.
    """
    path, bundled = Path(source), bundled_models()
    # A folder of images may have the name of a bundled model.
    of_a_run = any((path / name).exists() for name in (MODEL_FILE, "checkpoints", _CONFIG))
    if path.is_dir() and (of_a_run or str(source) not in bundled):
        path = _in_workdir(path)
    if path.is_file():
        return path
    if str(source) in bundled:
        return bundled[str(source)]
    raise InputError(
        f"{source}: no such model; give the workdir of a finished run, a file of cellcount export,"
        f" or one that the package brings: {', '.join(bundled) or 'there are none'}"
    )


def bundled_models() -> dict[str, Path]:
    """The models that the package brings: name -> file.

    Examples:
      >>> from cellcount_jax import bundled_models
      >>> list(bundled_models())
      ['microglia3d', 'nuclei2d', 'nuclei3d', 'nuclei_he']
    """
    return {path.stem: path for path in sorted(_FOLDER.glob("*.zip"))}


def export_model(model: Model, path: Path, *, card: str) -> None:
    """Writes a trained model as one file, whole or not at all.

    Args:
      model: calibrated.
      path: of the file; the folder is made where it is missing.
      card: Markdown that describes the training, its data and the scores.

    Examples:
      >>> from pathlib import Path
      >>> from cellcount_jax import export_model, load_model
      >>> model = load_model("microglia3d")
      >>> export_model(model, Path("mine.zip"), card="# Trained on my own volumes")
      >>> load_model("mine.zip").thresholds == model.thresholds
      True
    """
    contents = {
        _CONFIG: _as_json(settings.to_json(model.config)),
        _MODEL: _as_json(to_json(model)),
        _CARD: card.encode(),
    }
    for name, value in named(model.variables).items():
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(value), allow_pickle=False)
        contents[f"{VARIABLES}{name}.npy"] = buffer.getvalue()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)


def check_output(path: Path, *, overwrite: bool, read: Iterable[Path]) -> None:
    """Makes sure, before anything is computed, that a model may be written to a file.

    Args:
      path: the file.
      overwrite: whether another model may be replaced.
      read: files and folders that are read, which never are.

    Raises:
      InputError: it may not.
    """
    check_file(path)
    place = path.resolve()
    for other in read:
        if place.is_relative_to(other.resolve()):
            raise InputError(f"{path}: is, or lies in, {other}, which is read; give another file")
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise InputError(f"{path}: is there already; give another file, or --overwrite")
    try:
        with open_archive(path) as archive:
            read_member(archive, _MODEL, path)
    except InputError as error:
        raise InputError(
            f"{path}: is no model, and --overwrite replaces models only; give another file"
        ) from error


def read_card(path: Path) -> str:
    """The card of an exported model.

    Raises:
      InputError: the file is no such model.
    """
    with open_archive(path) as archive:
        return read_member(archive, _CARD, path).decode("utf-8", errors="replace")


def about_parent(config: ml_collections.ConfigDict) -> str:
    """A paragraph for the card of a model that was fine-tuned from another; '' for others."""
    if not config.init_from:
        return ""
    return f"\nFine-tuned from the model {config.init_from} (sha256 {config.init_digest}).\n"


def digest(model: Model) -> str:
    """A hash of all that a model's results depend on, whatever file it was read from.

    What is as if there were no such setting or attribute is left out, so that one that a later
    version adds does not make another model of it.
    """
    given, default = (
        settings.flatten(settings.to_json(config))
        for config in (model.config, settings.default_config())
    )
    default |= settings.BEFORE_ITS_TIME
    changed = {key: value for key, value in sorted(given.items()) if value != default.get(key)}
    absent = {field.name: field.default for field in dataclasses.fields(TrainedModel)}
    stored = {key: value for key, value in to_json(model).items() if value != absent.get(key)}
    found = hashlib.sha256(_as_json([changed, stored]))
    for name, value in named(model.variables).items():
        found.update(name.encode() + np.ascontiguousarray(value).tobytes())
    return found.hexdigest()


def to_json(model: Model) -> dict[str, Any]:
    """The content of model.json: a model without its config and variables."""
    stored = {name: getattr(model, name) for name in _STORED}
    if model.reference:
        stored["reference"] = {name: list(ends) for name, ends in model.reference.items()}
    return {**stored, "normalisation": model.normalisation.to_dict()}


def _in_workdir(workdir: Path) -> Path:
    """The model file of a run."""
    path = workdir / MODEL_FILE
    if path.is_file():
        _check_finished(path)
        return path
    if (workdir / "checkpoints").is_dir():
        raise InputError(
            f"{path}: no such file, so the run was not evaluated, or by an older version; finish"
            " it with the command that began it, or evaluate it with --mode=evaluate"
        )
    raise InputError(
        f"{path}: no such file, so {workdir} is not the workdir of a finished run; train one with"
        " cellcount train, or python -m cellcount_jax.main --config=... --workdir=..."
    )


def _check_finished(path: Path) -> None:
    """Makes sure that a run was evaluated at its end, and not only on the way."""
    with open_archive(path) as archive:
        stored = read_json(archive, _MODEL, path)
    reached = [int(p.name) for p in path.parent.glob("checkpoints/*") if p.name.isdecimal()]
    step = stored.get("step") if isinstance(stored, dict) else None
    if isinstance(step, int) and max(reached, default=0) > step:
        raise InputError(
            f"{path}: is of step {step}, and the run went on to step {max(reached)}; finish it with"
            " the command that began it, or evaluate it with --mode=evaluate"
        )


def _read_archive(path: Path) -> TrainedModel:
    with open_archive(path) as archive:
        config = settings.from_json(read_json(archive, _CONFIG, path), path)
        stored = read_json(archive, _MODEL, path)
        try:
            validation.validate(config)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        model = _from_json(stored, config, path)

        def create() -> Any:
            # With the key in here nothing is compiled.
            return initial_variables(jax.random.key(0), config, channels=model.channels)

        expected = jax.eval_shape(create)
        return dataclasses.replace(model, variables=read_arrays(archive, expected, path))


def _from_json(stored: Any, config: ml_collections.ConfigDict, path: Path) -> TrainedModel:
    """The model of the content of model.json, without variables."""
    try:
        values = dict(stored)
        normalisation = Normalisation.from_dict(values.pop("normalisation"))
        values["spacing"] = tuple(map(float, values["spacing"]))
        # Models of older versions have none.
        ranges = values.get("reference", {}).items()
        values["reference"] = {name: (float(low), float(high)) for name, (low, high) in ranges}
        model = TrainedModel(config=config, variables=None, normalisation=normalisation, **values)
        checked = values_of(model)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{path}: {_MODEL} in it is not a model of this version"
            f" ({type(error).__name__}: {error}); get the file anew"
        ) from error
    for key, (value, good, allowed) in checked.items():
        if not good:
            raise InputError(
                f"{path}: {_MODEL} in it has {key} = {value!r}, which must be {allowed}; get the"
                " file anew"
            )
    return model


def _as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
