"""Counting on dask's workers: real processes, one of which is killed, and errors from them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from cellcount_jax.counting import cluster, engines, job_file
from cellcount_jax.counting import count as counting
from cellcount_jax.errors import InputError
from cellcount_jax.images import sources
from cellcount_jax.images.image_files import read_image
from cellcount_jax.images.inputs import Input
from cellcount_jax.images.regions import Array
from cellcount_jax.images.selection import Selection
from cellcount_jax.inference import model_file, tasks
from cellcount_jax.inference.job import Engine, Job, Task
from cellcount_jax.inference.trained_model import TrainedModel

LIMIT = 1500
TILES = 40  # of the volume, beside each other; each is computed and searched

pytestmark = pytest.mark.usefixtures("quick_compiling")

INSTALLED = importlib.util.find_spec("distributed") is not None
needs_dask = pytest.mark.skipif(
    not INSTALLED, reason="distributed is not installed: pip install 'cellcount_jax[cluster]'"
)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory, cells_3d: Path) -> Path:
    """12x80x80 voxels."""
    path = tmp_path_factory.mktemp("images") / "a.npy"
    np.save(path, np.tile(read_image(cells_3d / "test" / "test.tif").pixels[..., 0], (1, 2, 2)))
    return path


@pytest.fixture
def model(run_3d: Path) -> TrainedModel:
    """A model that cuts the volume in tiles."""
    settings = {"predict.max_voxels": LIMIT, "predict.flips": False}
    return model_file.load_model(run_3d).with_settings(settings)


@pytest.fixture(scope="module")
def workers() -> Iterator[Any]:
    """Two processes."""
    from distributed import LocalCluster

    with pytest.MonkeyPatch.context() as patch:
        # As the fixture quick_compiling, in other processes.
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        patch.setenv("JAX_PLATFORMS", "cpu")
        patch.setenv("DASK_LOGGING__DISTRIBUTED", "error")
        with LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=":0"
        ) as started:
            yield started


@pytest.fixture
def count(model: TrainedModel, volume: Path) -> Callable[..., bytes]:
    """Counts the volume into a folder, as `count(output, engine)`; gives points.csv."""

    def count(output: Path, engine: Callable[[Job], Engine] = engines.in_threads) -> bytes:
        inputs, options = [Input("a", volume)], counting.Options()
        counting.count_files(model, inputs, output, options=options, name="m", engine=engine)
        return (output / "a" / "points.csv").read_bytes()

    return count


class Watched:
    """A progress bar that calls a function after each task, with the number of its tiles."""

    def __init__(self, update: Callable[..., None]) -> None:
        self.update = update

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def after(
    monkeypatch: pytest.MonkeyPatch, number: int, do: Callable[[], object]
) -> tuple[list[int], list[str]]:
    """Does something when a number of tiles are done; gives the number that is done, in a list, and
    the titles of what workers did."""
    done, titles = [0], list[str]()

    def update(tiles: int) -> None:
        done[0] += tiles
        if done[0] == number:
            do()

    def progress(title: str, total: int, unit: str) -> Watched:
        titles.append(title)
        return Watched(update if unit == "tile" else lambda parts: None)

    monkeypatch.setattr(cluster, "progress", progress)
    return done, titles


@needs_dask
def test_a_worker_that_is_killed_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: Any, count: Callable[..., bytes]
) -> None:
    expected = count(tmp_path / "threads")
    before = [nanny.pid for nanny in workers.workers.values()]
    done, titles = after(monkeypatch, TILES // 2, lambda: os.kill(before[0], signal.SIGKILL))
    with cluster.engines_on(workers.scheduler_address) as engine:
        found = count(tmp_path / "dask", engine)
    assert found == expected and found.count(b"\n") > 50
    assert done == [2 * TILES] and titles == ["reading", "computing", "searching"]
    for name in ("job.json", "model.zip"):
        assert (tmp_path / "dask" / "a" / "work" / name).exists()
    end = time.monotonic() + 30
    while before[0] in (now := [nanny.pid for nanny in workers.workers.values()]) or None in now:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert now[1] == before[1], "only one was killed"


@needs_dask
def test_a_count_that_is_stopped_leaves_no_task_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: Any, count: Callable[..., bytes]
) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    after(monkeypatch, TILES // 2, stop)
    with cluster.engines_on(workers.scheduler_address) as engine:
        with pytest.raises(KeyboardInterrupt):
            count(tmp_path / "dask", engine)
        end = time.monotonic() + 20
        while workers.scheduler.tasks:
            assert time.monotonic() < end, "tasks are left"
            time.sleep(0.05)
        done, _ = after(monkeypatch, -1, stop)
        monkeypatch.setattr(cluster, "_MAX_SUBMITTED", 3)
        found = count(tmp_path / "dask", engine)
    assert TILES <= done[0] <= TILES + TILES // 2, "what is computed is not computed again"
    assert found == count(tmp_path / "threads")


def test_workers_open_an_image_by_its_link(tmp_path: Path, volume: Path) -> None:
    blob, link = tmp_path / "5d41", tmp_path / "a.npy"
    blob.write_bytes(volume.read_bytes())
    link.symlink_to(blob)
    with sources.open_source(job_file.origin(link, Selection(), rescale=False)["path"]) as source:
        assert source.path == link


@needs_dask
def test_an_error_on_a_worker_is_the_same_error_here(
    tmp_path: Path, workers: Any, model: TrainedModel, volume: Path
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.load(volume).astype(np.float32))
    with sources.open_source(path) as source:
        origin = job_file.origin(path, Selection(), rescale=False)
        job = Job(model, source, tmp_path / "work", origin=origin)
        job.folder.mkdir()
        tasks.prepare(job)
        values = np.load(path)
        values[5, 40, 60] = np.nan
        np.save(path, values)
        todo = tasks.pending(job, "compute")
        with cluster.engines_on(workers.scheduler_address) as engine:
            with pytest.raises(InputError, match=r"a\.npy: NaN, infinite") as there:
                engine(job)(todo, "computing")
            path.unlink()
            with pytest.raises(InputError, match=r"worker on .*a\.npy: no such file"):
                engine(job)(todo, "computing")
    np.save(path, values)
    with sources.open_source(path) as source, pytest.raises(InputError) as here:
        engines.in_threads(dataclasses.replace(job, image=source))(todo, "computing")
    first, second = (str(error.value).split(" at (z, y, x)")[0] for error in (here, there))
    assert first == second


@needs_dask
def test_a_task_that_ends_its_workers_is_given_up(workers: Any) -> None:
    from distributed import Client

    allowed, workers.scheduler.allowed_failures = workers.scheduler.allowed_failures, 0
    try:
        with Client(workers, set_as_default=False) as client:
            future = client.submit(os._exit, 1, pure=False, retries=cluster._RETRIES)
            with pytest.raises(InputError, match="tasks were given up as 1 workers died"):
                cluster._check(future, "local")
            client.wait_for_workers(2, timeout=30)
    finally:
        workers.scheduler.allowed_failures = allowed


@needs_dask
def test_a_worker_of_another_version_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: Any, count: Callable[..., bytes]
) -> None:
    import distributed.versions

    # Here, and not in the workers' processes.
    get = distributed.versions.get_versions

    def another(*arguments: Any, **options: Any) -> Any:
        versions = get(*arguments, **options)
        if "cellcount_jax" in versions["packages"]:
            versions["packages"]["cellcount_jax"] = "9.9"
        return versions

    monkeypatch.setattr(distributed.versions, "get_versions", another)
    with (
        cluster.engines_on(workers.scheduler_address) as engine,
        pytest.raises(
            InputError, match=r"the worker tcp://.* has cellcount_jax .*here is .* 9\.9 on"
        ),
    ):
        count(tmp_path, engine)


@needs_dask
def test_the_command_with_processes_of_its_own(
    tmp_path: Path,
    count: Callable[..., bytes],
    volume: Path,
    run_3d: Path,
    run_module: Callable[..., tuple[int, str, str]],
) -> None:
    expected = count(tmp_path / "threads")
    arguments = ("count", volume, "--model", run_3d, "--output", tmp_path / "out", "--no-thorough")
    status, out, errors = run_module(
        "cli", *arguments, "--max-voxels", str(LIMIT), "--scheduler", "local"
    )
    assert status == 0, errors
    assert (tmp_path / "out" / "a" / "points.csv").read_bytes() == expected
    assert f"in {TILES} tiles, " in out and "of memory for each worker" in out
    lines = [line for line in errors.replace("\r", "\n").splitlines() if "/s]" not in line]
    assert not [line for line in lines if line and "does not give the voxel size" not in line]


@needs_dask
@pytest.mark.parametrize(
    ("platform", "devices", "visible", "expected"),
    [
        ("gpu", 2, None, [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]),
        ("gpu", 2, "3,5", [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}]),
        ("tpu", 4, None, [{}]),
        ("cpu", 1, None, [{"NPROC": "5"}, {"NPROC": "5"}]),
    ],
)
def test_each_local_worker_has_a_gpu_or_cores_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    devices: int,
    visible: str | None,
    expected: list[dict[str, str]],
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    there = [SimpleNamespace(platform=platform, id=i) for i in range(devices)]
    monkeypatch.setattr(jax, "local_devices", lambda: there)
    monkeypatch.setattr("dask.system.CPU_COUNT", 11)
    assert cluster._environments() == expected
    monkeypatch.setattr("dask.system.CPU_COUNT", 1)
    if platform == "cpu":
        assert cluster._environments() == [{"NPROC": "1"}]


@needs_dask
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nothing://here", "here"])
def test_a_scheduler_that_is_not_there(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(cluster, "_TIMEOUT_S", 0.5)
    with (
        pytest.raises(InputError, match=f"--scheduler {address}: cannot be reached"),
        cluster.engines_on(address),
    ):
        pass


def test_without_dask_the_error_names_the_extra(
    tmp_path: Path,
    call: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    volume: Path,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    output = ("--output", tmp_path / "out")
    assert call("count", volume, "--model", "nuclei3d", *output, "--scheduler", "local") == 1
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1 and 'pip install "cellcount_jax[cluster]"' in errors
    assert not (tmp_path / "out").exists()


def test_a_job_comes_back_from_its_folder(tmp_path: Path, model: TrainedModel) -> None:
    values = np.random.default_rng(0).normal(100, 10, (12, 80, 120)).astype(np.float32)
    path = tmp_path / "b.npy"
    np.save(path, values)
    selection = Selection(channel=0, spacing=(1.0, 1.0, 1.0))
    with sources.open_source(path, selection) as source:
        image = model.fitted(source, spacing=source.spacing).image
        assert image is not source
        origin = job_file.origin(path, selection, rescale=True)
        job = Job(model, image, tmp_path / "work", origin=origin)
        mark = job_file.save(job)
        again = job_file.reopen(job.folder, mark)
        assert job_file.reopen(job.folder, mark) is again, "it stays open"
        assert model_file.digest(again.model) == model_file.digest(model)
        assert again.plan == job.plan and not job.plan.whole
        region = (slice(0, 5), slice(60, 80), slice(3, 50))
        np.testing.assert_array_equal(again.image.read(region), image.read(region))
        assert job_file.reopen(job.folder, job_file.save(job)) is not again
        with pytest.raises(InputError, match="of another count"):
            job_file.reopen(job.folder, mark)
    with pytest.raises(ValueError, match="in memory"):
        job_file.save(dataclasses.replace(job, origin=None))


def test_a_job_that_cannot_be_opened(tmp_path: Path, model: TrainedModel, volume: Path) -> None:
    task = Task("compute", (0,))
    pytest.importorskip("dask", reason="distributed is not installed")
    missing = cluster.run_on_worker(str(tmp_path / "none"), "1", task)
    assert isinstance(missing, InputError)
    assert "worker on " in str(missing) and "where every worker finds them" in str(missing)
    job = Job(
        model,
        Array(np.load(volume), 3),
        tmp_path,
        origin=job_file.origin(volume, Selection(), rescale=False),
    )
    mark = job_file.save(job)
    stored = json.loads((tmp_path / "job.json").read_text())
    for change, words in (
        ({"version": "9.9"}, "is being counted by cellcount_jax 9.9, and here is"),
        ({"path": "/nowhere/a.npy"}, "/nowhere/a.npy: no such file or folder; the images"),
    ):
        (tmp_path / "job.json").write_text(json.dumps({**stored, **change}))
        wrong = cluster.run_on_worker(str(tmp_path), mark, task)
        assert isinstance(wrong, InputError) and words in str(wrong)


@needs_dask
def test_the_local_processes_listen_to_this_machine_alone() -> None:
    psutil = pytest.importorskip("psutil")

    def listening() -> set[tuple[int, Any]]:
        me = psutil.Process()
        return {
            (process.pid, connection.laddr)
            for process in (me, *me.children(recursive=True))
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }

    before = listening()  # the cluster of other tests
    with cluster._local_cluster() as started:
        assert len(started.workers) >= 1
        found = [address.ip for _, address in listening() - before]
    assert len(found) >= 3 and set(found) == {"127.0.0.1"}


@needs_dask
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_scheduler_behind_tls_is_reached_with_a_certificate_alone(
    tmp_path: Path, volume: Path, count: Callable[..., bytes]
) -> None:
    import dask
    from distributed import LocalCluster, Security

    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=me"]
    request += ["-days", "2", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(request, check=True, capture_output=True)
    names = {"tls_ca_file": str(certificate)}
    for role in ("client", "scheduler", "worker"):
        names |= {f"tls_{role}_key": str(key), f"tls_{role}_cert": str(certificate)}
    security = Security(require_encryption=True, **names)
    settings = {
        "distributed.comm.tls.ca-file": str(certificate),
        "distributed.comm.tls.client": {"key": str(key), "cert": str(certificate)},
    }
    options = {"processes": False, "n_workers": 1, "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(security=security, protocol="tls", **options) as started:
        address = started.scheduler_address
        assert address.startswith("tls://")
        with (
            pytest.raises(InputError, match="names no certificate"),
            cluster.engines_on(address),
        ):
            pass
        with dask.config.set(settings), cluster.engines_on(address) as engine:
            assert count(tmp_path / "tls", engine) == count(tmp_path / "threads")
