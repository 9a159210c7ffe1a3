"""Models in files: round trips, damaged ones, and none that could execute anything."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from cellcount_jax import config as settings
from cellcount_jax.errors import InputError
from cellcount_jax.images.image_files import read_image
from cellcount_jax.inference import model_file

pytestmark = pytest.mark.usefixtures("quick_compiling")

Members = dict[str, bytes]


@pytest.fixture(scope="module")
def exported(run_2d: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "new" / "mine.zip"
    model_file.export_model(model_file.load_model(run_2d), path, card="# Mine\n\nDots: 3.\n")
    return path


def members(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, content: Members) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)


def test_an_exported_model_is_the_model(exported: Path, run_2d: Path, cells_2d: Path) -> None:
    trained, loaded = model_file.load_model(run_2d), model_file.load_model(str(exported))
    assert model_file.to_json(loaded) == model_file.to_json(trained)
    assert loaded.config.to_dict() == trained.config.to_dict()
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, trained.variables)
    image = read_image(cells_2d / "test" / "t0.png").pixels
    for ours, theirs in zip(loaded.predict(image), trained.predict(image), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert model_file.read_card(exported) == "# Mine\n\nDots: 3.\n"


def test_the_same_model_gives_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    model_file.export_model(model_file.load_model(exported), again, card="# Mine\n\nDots: 3.\n")
    assert again.read_bytes() == exported.read_bytes()


def test_a_model_of_an_older_version_has_the_defaults(exported: Path, tmp_path: Path) -> None:
    content = members(exported)
    config = json.loads(content["config.json"])
    del config["train"]["cut_margin"]
    path = tmp_path / "older.zip"
    write(path, {**content, "config.json": json.dumps(config).encode()})
    assert model_file.load_model(path).config.train.cut_margin == 0.0
    stored = json.loads(content["model.json"])
    del stored["reference"]
    write(path, {**content, "model.json": json.dumps(stored).encode()})
    assert model_file.load_model(path).reference == {}
    config["train"]["from_the_future"] = 1
    write(path, {**content, "config.json": json.dumps(config).encode()})
    with pytest.raises(InputError, match=r"older\.zip: .*settings train\.from_the_future"):
        model_file.load_model(path)


def test_what_is_added_later_makes_no_other_model(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = members(exported)
    config, stored = (json.loads(content[name]) for name in ("config.json", "model.json"))
    added = [key.split(".") for key in ("augment.blur", *settings.BEFORE_ITS_TIME)]
    for section, name in added:
        del config[section][name]
    del stored["count_factor"]
    changed = {"config.json": config, "model.json": stored}
    write(
        tmp_path / "older.zip",
        content | {name: json.dumps(value).encode() for name, value in changed.items()},
    )
    older = model_file.load_model(tmp_path / "older.zip")
    newer = model_file.load_model(exported).with_settings(settings.BEFORE_ITS_TIME)
    newer = dataclasses.replace(newer, count_factor=1.0)
    others = [
        newer.with_settings({"predict.flips": True}),
        newer.with_settings({"data.calibration_share": 0.3}),
        dataclasses.replace(newer, count_factor=1.5),
    ]
    digest = model_file.digest(older)
    assert model_file.digest(newer) == digest
    assert len({digest, *map(model_file.digest, others)}) == 4

    # And a version without these settings gave the model the same digest.
    known = {section: dict(names) for section, names in settings.SETTINGS.items()}
    there = older.config.copy_and_resolve_references()
    for section, name in added:
        del known[section][name], there[section][name]
    monkeypatch.setattr(settings, "SETTINGS", known)
    monkeypatch.setattr(settings, "BEFORE_ITS_TIME", {})
    assert model_file.digest(dataclasses.replace(older, config=there)) == digest


def test_a_run_that_went_on_after_its_evaluation(run_2d: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(run_2d, workdir)
    step = model_file.load_model(workdir).step
    (workdir / "checkpoints" / str(step + 10)).mkdir()
    with pytest.raises(InputError, match=rf"is of step {step}, and the run went on to step"):
        model_file.load_model(workdir)


def test_a_folder_of_images_with_the_name_of_a_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "nuclei2d"
    folder.mkdir()
    (folder / "a.tif").touch()
    assert model_file.model_path("nuclei2d") == model_file.bundled_models()["nuclei2d"]
    (folder / "checkpoints").mkdir()
    with pytest.raises(InputError, match="the run was not evaluated"):
        model_file.model_path("nuclei2d")


def test_bundled_models_load(monkeypatch: pytest.MonkeyPatch, exported: Path) -> None:
    for name, path in model_file.bundled_models().items():
        assert model_file.load_model(name).thresholds["peaks"] > 0
        assert path.stat().st_size < 8e6 and model_file.read_card(path).startswith("# ")
    monkeypatch.setattr(model_file, "_FOLDER", exported.parent)
    assert list(model_file.bundled_models()) == ["mine"]
    assert model_file.load_model("mine").step == model_file.load_model(exported).step
    with pytest.raises(InputError, match="nuclei4d: no such model; .* brings: mine"):
        model_file.load_model("nuclei4d")


class Exploit:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def saved(value: Any, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value, allow_pickle=allow_pickle)
    return buffer.getvalue()


def first_array(content: Members) -> str:
    return next(name for name in content if name.endswith(".npy"))


def huge(array: bytes) -> bytes:
    """A header that promises an array of many terabytes."""
    shape = np.load(io.BytesIO(array)).shape
    text = array.decode("latin1").replace(str(shape), str((10**13, 1)), 1)
    return text.encode("latin1")


def with_member(name: str, value: bytes) -> Callable[[Members], Members]:
    return lambda content: {**content, name: value}


def changed_array(change: Callable[[bytes], bytes]) -> Callable[[Members], Members]:
    def apply(content: Members) -> Members:
        name = first_array(content)
        return {**content, name: change(content[name])}

    return apply


def infinite(array: bytes) -> bytes:
    return saved(np.full_like(np.load(io.BytesIO(array)), np.inf))


def another_type(array: bytes) -> bytes:
    return saved(np.load(io.BytesIO(array)).astype(np.float16))


def deep_header(array: bytes) -> bytes:
    """A header in which Python's parser gives up."""
    start = array.index(b"{")
    end = array.index(b"\n", start)
    return array[:start] + b"(" * (end - start) + array[end:]


def changed_json(name: str, **values: Any) -> Callable[[Members], Members]:
    """Some values replaced; a double underscore stands for a dot."""

    def apply(content: Members) -> Members:
        stored = json.loads(content[name])
        for key, value in values.items():
            *outer, last = key.split("__")
            inner = stored
            for part in outer:
                inner = inner[part]
            inner[last] = value
        return {**content, name: json.dumps(stored).encode()}

    return apply


in_config = functools.partial(changed_json, "config.json")
in_model = functools.partial(changed_json, "model.json")

BROKEN: dict[str, tuple[Callable[[Members], Members], str]] = {
    "no config": (
        lambda c: {k: v for k, v in c.items() if k != "config.json"},
        "it holds no config.json",
    ),
    "no array": (
        lambda c: {k: v for k, v in c.items() if k != first_array(c)},
        "it holds no variables/",
    ),
    "torn JSON": (with_member("model.json", b'{"a": '), "model.json in it is not valid JSON"),
    "no object": (with_member("config.json", b"[1]"), "are no JSON object"),
    "another object": (with_member("model.json", b"[1]"), "is not a model of this version"),
    "large JSON": (with_member("model.json", b" " * 2**21), "model.json in it has 2097152 bytes"),
    "an impossible setting": (
        lambda c: {
            **c,
            "config.json": c["config.json"].replace(b'"levels": 2', b'"levels": 99'),
        },
        "config.model.levels = 99",
    ),
    "no range in the reference": (
        lambda c: {
            **c,
            "model.json": c["model.json"].replace(b'"reference": {', b'"reference": {"odd": [1],'),
        },
        "is not a model of this version",
    ),
    "no array header": (changed_array(lambda _: b"nothing"), "is no plain array"),
    "a truncated array": (changed_array(lambda a: a[:-8]), "is damaged"),
    "an array that is too large": (changed_array(lambda a: a + b"0" * 10**6), "in it has"),
    "a lying header": (changed_array(huge), "describes has"),
    "another type": (changed_array(another_type), "in it is float16"),
    "infinite": (changed_array(infinite), "incomplete or not finite"),
    "a deep header": (changed_array(deep_header), "is no plain array"),
    "far too many features": (in_config(model__features=1e30), "model.features = 1e+30"),
    "too many features": (in_config(model__features=1025), "at least 1 and at most 1024"),
    "a bomb": (
        in_config(model__features=1024, model__levels=8, train__crop=[128, 128]),
        "no model has more than 2.15",
    ),
    "an endless kernel": (in_config(target__max_distance=1e18), "target.max_distance = 1e+18"),
    "an endless distance": (in_config(detect__min_distance=[1, 10**9]), "detect.min_distance"),
    "no object in a setting": (in_config(model__levels={}), "model.levels = {} is of a wrong"),
    "a negative threshold": (
        in_model(thresholds={"peaks": -0.1}),
        "thresholds = {'peaks': -0.1}, which must be numbers above 0, one of them for peaks",
    ),
    "a threshold of another rule": (in_model(thresholds={"fidt": 0.1}), "one of them for peaks"),
    "a threshold that is none": (in_model(thresholds={"peaks": float("nan")}), "'peaks': nan"),
    "a threshold as text": (in_model(thresholds={"peaks": "0.5"}), "'peaks': '0.5'"),
    "a threshold that is true": (in_model(thresholds={"peaks": True}), "'peaks': True"),
    "a huge threshold": (in_model(thresholds={"peaks": 10**400}), "which must be numbers"),
    "a negative factor": (in_model(count_factor=-1.0), "count_factor = -1.0, which must be"),
    "an infinite edge": (in_model(spacing=[1.0, float("inf")]), "spacing = (1.0, inf)"),
    "half a channel": (in_model(channels=0.5), "channels = 0.5, which must be a whole number"),
    "too many channels": (in_model(channels=10**9), "from 1 to 1000"),
    "another normalisation": (in_model(normalisation__method="zscore"), "must be one of dataset"),
    "a scale of 0": (in_model(normalisation__scale=[0.0]), "normalisation.scale = (0.0,)"),
    "no numbers": (in_model(normalisation__centre="ab"), "normalisation.centre = ('a', 'b')"),
    "something new": (in_model(from_the_future=1), "is not a model of this version"),
}


@pytest.mark.parametrize(("change", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_model_is_an_error_that_names_the_file(
    exported: Path, tmp_path: Path, change: Callable[[Members], Members], words: str
) -> None:
    path = tmp_path / "broken.zip"
    content = members(exported)
    write(path, change(content))
    with pytest.raises(InputError) as error:
        model_file.load_model(path)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert str(path) in str(error.value) or "config.model" in str(error.value)


def test_nothing_in_a_model_is_executed(exported: Path, tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.zip", tmp_path / "was_here"
    evil = np.empty(1, object)
    evil[0] = Exploit(trace)
    for value in (saved(evil, allow_pickle=True), pickle.dumps(evil[0])):
        write(path, changed_array(lambda _, value=value: value)(members(exported)))  # type: ignore[misc]
        with pytest.raises(InputError):
            model_file.load_model(path)
    assert not trace.exists()


def test_what_else_is_in_a_model_is_neither_read_nor_unpacked(
    exported: Path, tmp_path: Path
) -> None:
    path = tmp_path / "folder" / "odd.zip"
    path.parent.mkdir()
    names = ("../outside", "/tmp/../../outside", "variables/../../outside", "variables/new.npy")
    write(path, {**members(exported), **dict.fromkeys(names, b"evil")})
    assert model_file.load_model(path).step == model_file.load_model(exported).step
    assert [found.name for found in tmp_path.rglob("*")] == ["folder", "odd.zip"]


@pytest.mark.parametrize("content", [b"", b"not a zip archive", b"PK\x03\x04 almost"])
def test_another_file_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"model\.zip: (is not a model file|the file is empty)"):
        model_file.load_model(path)


def test_every_truncation_is_noticed(exported: Path, tmp_path: Path) -> None:
    whole, path = exported.read_bytes(), tmp_path / "cut.zip"
    for size in range(1, len(whole), len(whole) // 7):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.zip"):
            model_file.load_model(path)
