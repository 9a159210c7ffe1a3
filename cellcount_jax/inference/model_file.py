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
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from cellcount_jax import config as settings
from cellcount_jax import validation
from cellcount_jax.errors import InputError
from cellcount_jax.images.files import existing_file, replacing
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.inference.job import Model
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.network.sau_net import initial_variables

MODEL_FILE = "model.zip"  # in the workdir of a run
_CONFIG, _MODEL, _CARD = "config.json", "model.json", "CARD.md"
_VARIABLES = "variables/"
_FOLDER = Path(__file__).parents[1] / "models"
_MAX_TEXT_BYTES = 2**20  # of each file but the arrays
_MAX_HEADER_BYTES = 1000  # of an array
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
    """
    return _read_archive(model_path(source))


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
    """The models that the package brings: name -> file."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.zip"))}


def export_model(model: Model, path: Path, *, card: str) -> None:
    """Writes a trained model as one file, whole or not at all.

    Args:
      model: calibrated.
      path: of the file; the folder is made where it is missing.
      card: Markdown that describes the training, its data and the scores.
    """
    contents = {
        _CONFIG: _as_json(settings.to_json(model.config)),
        _MODEL: _as_json(to_json(model)),
        _CARD: card.encode(),
    }
    for name, value in _named(model.variables).items():
        buffer = io.BytesIO()
        np.save(buffer, np.asarray(value), allow_pickle=False)
        contents[f"{_VARIABLES}{name}.npy"] = buffer.getvalue()
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)


def read_card(path: Path) -> str:
    """The card of an exported model.

    Raises:
      InputError: the file is no such model.
    """
    with _opened(path) as archive:
        return _member(archive, _CARD, path).decode("utf-8", errors="replace")


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
    for name, value in _named(model.variables).items():
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
    with _opened(path) as archive:
        stored = _parsed(archive, _MODEL, path)
    reached = [int(p.name) for p in path.parent.glob("checkpoints/*") if p.name.isdecimal()]
    step = stored.get("step") if isinstance(stored, dict) else None
    if isinstance(step, int) and max(reached, default=0) > step:
        raise InputError(
            f"{path}: is of step {step}, and the run went on to step {max(reached)}; finish it with"
            " the command that began it, or evaluate it with --mode=evaluate"
        )


def _read_archive(path: Path) -> TrainedModel:
    with _opened(path) as archive:
        config = settings.from_json(_parsed(archive, _CONFIG, path), path)
        stored = _parsed(archive, _MODEL, path)
        try:
            validation.validate(config)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        model = _from_json(stored, config, path)
        return dataclasses.replace(model, variables=_read_variables(archive, model, path))


def _parsed(archive: zipfile.ZipFile, name: str, path: Path) -> Any:
    try:
        return json.loads(_member(archive, name, path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {name} in it is not valid JSON ({error})") from error


def _read_variables(archive: zipfile.ZipFile, model: TrainedModel, path: Path) -> Any:
    """The arrays, in the shapes and types that the network has; no others are read."""
    expected = jax.eval_shape(
        lambda: initial_variables(jax.random.key(0), model.config, channels=model.channels)
    )
    found = []
    for name, like in _named(expected).items():
        size = like.size * like.dtype.itemsize
        member, most = f"{_VARIABLES}{name}.npy", size + _MAX_HEADER_BYTES
        content = io.BytesIO(_member(archive, member, path, max_bytes=most))
        try:
            np.lib.format.read_magic(content)
            shape, columns_first, dtype = np.lib.format.read_array_header_1_0(content)
        except ValueError as error:
            raise InputError(f"{path}: {name} in it is no plain array ({error})") from error
        if (shape, dtype) != (like.shape, like.dtype):
            raise InputError(
                f"{path}: {name} in it is {dtype} of {shape}, the network that its config"
                f" describes has {like.dtype} of {like.shape}"
            )
        numbers = content.read()
        value = np.frombuffer(numbers, dtype) if len(numbers) == size else None
        if value is None or not np.isfinite(value).all():
            raise InputError(f"{path}: is damaged ({name} in it is incomplete or not finite)")
        found.append(value.reshape(shape, order="F" if columns_first else "C"))
    return jax.tree.unflatten(jax.tree.structure(expected), found)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(existing_file(path))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(
            f"{path}: is not a model file ({error}); cellcount export writes one"
        ) from error


def _member(
    archive: zipfile.ZipFile, name: str, path: Path, *, max_bytes: int = _MAX_TEXT_BYTES
) -> bytes:
    """The content of a file in the archive.

    Raises:
      InputError: it is not there, damaged, or larger than in any model.
    """
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise InputError(f"{path}: is not a model file, it holds no {name}") from None
    if info.file_size > max_bytes:
        raise InputError(f"{path}: is not a model file, {name} in it has {info.file_size} bytes")
    try:
        return archive.read(info)
    # Damaged archives raise anything, from zlib.error to EOFError.
    except Exception as error:
        raise InputError(f"{path}: is damaged ({error})") from error


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
        usable = _is_usable(model)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path / _MODEL}: is not a model of this version") from error
    if not usable:
        raise InputError(f"{path / _MODEL}: holds values that no model has")
    return model


def _is_usable(model: TrainedModel) -> bool:
    """Whether prediction can use all values that came from a file."""
    config, normalisation = model.config, model.normalisation
    per_channel = model.channels if normalisation.method == "dataset" else 0
    axes = config.data.ndim if normalisation.method in ("signal_to_noise", "contrast") else 0
    numbers = (*normalisation.centre, *normalisation.scale, *model.thresholds.values())
    numbers += tuple(end for ends in model.reference.values() for end in ends)
    return (
        type(model.channels) is int
        and model.channels > 0
        and type(model.step) is int
        and type(model.spacing_known) is bool
        and len(model.spacing) == config.data.ndim
        and all(0 < edge < math.inf for edge in model.spacing)
        and config.detect.rule in model.thresholds
        and all(math.isfinite(number) for number in (*numbers, model.count_factor))
        and normalisation.method in settings.NORMALISATIONS
        and len(normalisation.centre) == len(normalisation.scale) == per_channel
        and len(normalisation.block) == axes
        and all(type(size) is int and size > 0 for size in normalisation.block)
    )


def _named(tree: Any) -> Mapping[str, Any]:
    """The leaves of a tree of dictionaries by their path, 'params/encoder/level_0/...'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def _as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
