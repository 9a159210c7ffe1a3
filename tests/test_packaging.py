"""The wheel and the sdist: what is in them, and that an installed package finds its configs."""

from __future__ import annotations

import email
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cellcount_jax import overrides
from cellcount_jax.errors import InputError

ROOT = Path(__file__).parents[1]
CONFIGS = {path.name for path in (ROOT / "configs").glob("*.py")}
# What a working copy has beside the source.
LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info"),
    *("build", "dist", "runs", "site"),
)


def has_setuptools() -> bool:
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        return False
    return int(version.partition(".")[0]) >= 71  # which makes wheels by itself


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel and an sdist, made of a copy."""
    if not has_setuptools():
        pytest.skip("setuptools 71 or later, of the extra test, is not installed")
    copy = tmp_path_factory.mktemp("source") / "clone"
    shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "sdist"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    return copy / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_configs_and_all_data_of_the_package(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info" not in name}
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cellcount_jax").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == package | {f"cellcount_jax/configs/{name}" for name in CONFIGS}


def test_an_installed_package_finds_its_configs_from_anywhere(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "cellcount_jax.main", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        return done.stderr

    known = ("demo", "focal", "full_annotation", "gaussian", "mean_teacher", "paper", "supervised")
    allowed = f"there are {', '.join(known)}, or none"
    error = run("--config=configs/vgg.py:nope")
    assert error == f"error: --config=vgg.py:nope: no such variant; {allowed}\n"
    # That of the current folder goes before.
    (empty / "configs").mkdir()
    (empty / "configs" / "vgg.py").write_text(
        "from cellcount_jax.configs import smoke\n\n\ndef get_config():\n    "
        "config = smoke.get_config()\n    config.train.step = 3\n    return config\n"
    )
    assert "config.train.step: no such setting" in run("--config", "configs/vgg.py")


def test_the_sdist_holds_what_the_tests_need(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("benchmarks", "configs", "docs", "launch", "results", "tests"):
        expected = {
            each.relative_to(ROOT).as_posix()
            for each in (ROOT / folder).rglob("*")
            if each.is_file() and each.suffix != ".pyc"
        }
        assert expected <= names
    assert {".ci/run", "CITATION.cff", "constraints.txt", "setup.py", "README.md"} <= names


def test_links_and_pictures_lead_somewhere_on_any_page(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_string(wheel.read(name).decode())
    text = str(metadata.get_payload())
    source = metadata["Home-page"]
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 10 and all(target.startswith("https://") for target in targets)
    assert "![Part of a report" in text and f"]({source}/raw/HEAD/docs/report.png)" in text
    for target in targets:
        if target.startswith(source):
            assert (ROOT / target.partition("/HEAD/")[2].partition("#")[0]).is_file(), target
    urls = metadata.get_all("Project-URL", [])
    assert f"Source, {source}" in urls and all(f", {source}" in url for url in urls)


@pytest.mark.parametrize("variant", ["", ":paper"])
def test_a_config_in_the_current_folder_goes_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = overrides.config_file(f"configs/vgg.py{variant}")
    assert found == f"{ROOT / 'configs' / 'vgg.py'}{variant}"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "vgg.py").write_text("")
    assert overrides.config_file(f"configs/vgg.py{variant}") == f"configs/vgg.py{variant}"
    own = f"{tmp_path / 'configs' / 'vgg.py'}{variant}"
    assert overrides.config_file(own) == own


@pytest.mark.parametrize("given", ["configs/vgh.py:paper", "vgg.py", "a/configs/vgg.py", "", "/"])
def test_a_config_that_is_not_there(given: str) -> None:
    with pytest.raises(InputError, match=r"no such file; .*configs/folder\.py, .*configs/vgg\.py"):
        overrides.config_file(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--config=A", "--workdir=x"], ["--config=FOUND A", "--workdir=x"]),
        (["-config", "A", "B"], ["-config", "FOUND A", "B"]),
        (["--config.data.dir=A", "--config"], ["--config.data.dir=A", "--config"]),
    ],
)
def test_which_argument_is_the_config_file(
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    expected: list[str],
) -> None:
    found: Callable[[str], str] = "FOUND {}".format
    monkeypatch.setattr(overrides, "config_file", found)
    assert overrides.with_config_found(given) == expected
