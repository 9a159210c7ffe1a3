"""What other systems than Linux do not have: nothing fails without it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from cellcount_jax import cli, machine
from cellcount_jax.images.files import check_folder
from cellcount_jax.images.zarr_stores import as_path
from cellcount_jax.inference import job_arrays, model_file
from cellcount_jax.network import native

# Of the modules os and psutil, what is not there on macOS, and on Windows.
MISSING = {
    "macOS": ("sched_getaffinity",),
    "Windows": ("sched_getaffinity", "sysconf", "statvfs", "ST_RDONLY", "getuid", "fork"),
}


@pytest.fixture(params=MISSING)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    if name == "Windows":
        usage = shutil.disk_usage(".")  # which is made of other calls there
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    for attribute in MISSING[name]:
        monkeypatch.delattr(os, attribute, raising=False)
    if name == "macOS":
        monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)
    return name


def test_the_machine_is_measured(system: str) -> None:
    assert machine.memory_bytes() > 2**28
    assert 1 <= machine.core_count() <= (os.cpu_count() or 1)


def test_the_doctor_does_not_die(
    system: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model_file, "bundled_models", dict)  # no count, which takes seconds
    assert cli.main(["doctor"]) == 0
    assert "GB of memory" in capsys.readouterr().out


def test_results_can_be_written(system: str, tmp_path: Path) -> None:
    check_folder(tmp_path / "results")


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_the_numbers_are_those_of_the_system() -> None:
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.memory_bytes() == pages
    assert machine.core_count() == len(os.sched_getaffinity(0))


def test_chunks_are_found_by_paths_with_backslashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    job_arrays.make_array(folder, (4, 4, 1), (2, 2, 1))
    job_arrays.open_array(folder)[:2, :2] = 1
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = [str(path).replace(os.sep, "\\") for path in files]
    monkeypatch.setattr(job_arrays, "files_below", lambda _: found)
    monkeypatch.setattr(os, "sep", "\\")
    is_stored = job_arrays.stored_parts(folder)
    assert is_stored((slice(0, 2), slice(0, 2))) and not is_stored((slice(0, 3), slice(0, 2)))


def test_an_address_has_slashes() -> None:
    assert str(as_path("https://host/a.zarr") / "0") == "https://host/a.zarr/0"


@pytest.mark.parametrize("failing", [OSError("no library"), AttributeError("convolve")])
def test_a_library_that_cannot_be_loaded_is_done_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failing: Exception
) -> None:
    """Such as a DLL whose compiler hides its functions."""

    def load(path: str) -> None:
        raise failing

    fresh: Callable[[], str | None] = native._prefix.__wrapped__
    monkeypatch.setattr(native.ctypes, "CDLL", load)
    monkeypatch.setattr(native, "_compiler", lambda: [sys.executable])
    monkeypatch.setattr(native, "_build", lambda compiler: Path("x.dll"))
    assert fresh() is None
    assert "2 to 3 times slower" in caplog.text and str(failing) in caplog.text


class _Library:
    """glibc, of which a test reads what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int]] = []

    def mallopt(self, option: int, value: int) -> None:
        self.told.append((option, value))


def test_threads_share_a_heap_where_that_can_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    library = _Library()
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: library)
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    machine.share_heap()
    assert not library.told
    monkeypatch.setattr(sys, "platform", "linux")
    machine.share_heap()
    assert library.told == [(-8, 1)]
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    machine.share_heap()
    assert len(library.told) == 1
    monkeypatch.delenv("MALLOC_ARENA_MAX")
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: object())  # musl has no mallopt
    machine.share_heap()
