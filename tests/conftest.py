"""What every test runs under, the real data where they are, and small runs that tests share."""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from fsspec.registry import _registry as registry  # type: ignore[import-untyped]
from jax import Array

from cellcount_jax import config as settings
from cellcount_jax import variants
from cellcount_jax.images.image_files import write_image
from cellcount_jax.images.normalise import Normalisation
from cellcount_jax.images.points import write_points
from cellcount_jax.inference import programs
from cellcount_jax.inference.trained_model import TrainedModel
from cellcount_jax.network import native
from cellcount_jax.network.convolutions import inside
from cellcount_jax.network.sau_net import initial_variables
from cellcount_jax.training import train

ROOT = Path(__file__).parents[1]

# Signals, pipes, links, permissions and shells that Windows does not have, or has otherwise.
collect_ignore = (
    [
        *("counting/test_claim.py", "counting/test_restart.py", "data/test_broken_links.py"),
        *("images/test_locks.py", "launch", "test_fuzz.py", "test_interrupts.py", "test_main.py"),
        *("test_malformed.py", "test_outputs.py", "training/test_run_folder.py"),
    ]
    if sys.platform == "win32"
    else []
)

# An array that is stretched to more axes without being asked is a mistake.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiling takes most of the time: what was compiled once serves all tests of a session, in all of
# its processes, and those that they start.
if "PYTEST_XDIST_WORKER" in os.environ:
    _PROGRAMS = os.environ["JAX_COMPILATION_CACHE_DIR"]
else:
    _PROGRAMS = tempfile.mkdtemp(prefix="jax_programs_")
    atexit.register(shutil.rmtree, _PROGRAMS, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _PROGRAMS
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
jax.config.update("jax_compilation_cache_dir", _PROGRAMS)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of this project's tests."""
    parser.addoption("--fuzz", type=int, help="examples of a test in test_fuzz.py, random ones")


@contextlib.contextmanager
def _quickly() -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def quick_compiling() -> Iterator[None]:
    """Compiles as for the shared runs: quickly, to slow programs with other rounding errors."""
    with _quickly():
        yield


@pytest.fixture
def unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the C++ kernels do not write in a trained network is NaN, not what memory holds."""
    convolve, upsample = native.convolve, native.upsample
    cut, max_pool = native.cut, native.max_pool

    def convolved(x: Array, kernel: Array, **options: Any) -> Array:
        y = convolve(x, kernel, **options)
        if options.get("finish") is None:
            return y
        shape, size, planes = y.shape[1:-1], options.get("size"), options.get("planes")
        written = jnp.ones(shape, bool) if size is None else inside(shape, size)
        if planes is not None:
            number = jnp.arange(shape[0])[:, None, None] + kernel.shape[0] // 2
            written &= (number >= planes[0]) & (number < planes[1])
        return jnp.where(written[None, ..., None], y, jnp.nan)

    def wanted(y: Array, part: native.Part) -> Array:
        # From the first voxel that is wanted on, they are an image of this size.
        first, end = part.there
        written = inside(part.shape, end - first, origin=-first)
        return jnp.where(written[None, ..., None], y, jnp.nan)

    def upsampled(x: Array, kernel: Array, finish: native.Finish, part: native.Part) -> Array:
        return wanted(upsample(x, kernel, finish, part), part)

    monkeypatch.setattr(native, "convolve", convolved)
    monkeypatch.setattr(native, "upsample", upsampled)
    monkeypatch.setattr(native, "cut", lambda x, part: wanted(cut(x, part), part))
    monkeypatch.setattr(native, "max_pool", lambda x, part: wanted(max_pool(x, part), part))
    _forget_programs()
    yield
    _forget_programs()


def _forget_programs() -> None:
    """Lets programs be made again of what the kernels are now."""
    programs.of_image.cache_clear()
    programs.of_window.cache_clear()
    programs._compiled.clear()


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Mixing number types in an operation is an error, as it hides a loss of precision."""
    with jax.numpy_dtype_promotion("strict"):
        yield


class TooSlow(BaseException):
    """Not an error that a command could report."""


@contextlib.contextmanager
def _within_limits() -> Iterator[None]:
    """2 GiB more of address space, 20 s by the clock and 2 of a processor (on Linux; else 2 s)."""
    started = time.process_time()
    if sys.platform != "linux":
        yield
        assert time.process_time() - started < 2
        return

    import resource

    def stop(*_: Any) -> None:
        raise TooSlow

    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, stop)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (held + 2 * 2**30, hard))
        signal.setitimer(signal.ITIMER_REAL, 20)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert time.process_time() - started < 2


@pytest.fixture
def limited() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """What reads files of others within it may neither hang nor take long, nor much memory."""
    return _within_limits


@contextlib.contextmanager
def _in_another_thread(lock: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture
def held_elsewhere() -> Callable[
    [contextlib.AbstractContextManager[None]], contextlib.AbstractContextManager[None]
]:
    """Holds a lock in another thread, as another process would."""
    return _in_another_thread


class _Served(LocalFileSystem):
    """Stands for a server: what lies in a folder, without listings."""

    protocol = "https"
    root = ""
    tells = True  # when a file was changed

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(path).replace("https://host", cls.root).rstrip("/")

    def ls(self, path: str, detail: bool = False, **kwargs: object) -> list[str]:
        raise PermissionError(path)

    def info(self, path: str, **kwargs: object) -> dict[str, Any]:
        found = super().info(path, **kwargs)
        told = {"ETag": f'"{found["mtime"]}"'} if self.tells else {}
        return {"name": path, "type": found["type"], "size": found["size"], **told}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of what is in `tmp_path`."""
    monkeypatch.setitem(sys.modules, "aiohttp", types.ModuleType("aiohttp"))
    monkeypatch.setattr(_Served, "root", str(tmp_path))
    monkeypatch.setitem(registry, "https", _Served)
    return "https://host"


@pytest.fixture
def silent_server(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """As `server`, but it does not say when a file was changed."""
    monkeypatch.setattr(_Served, "tells", False)
    return server


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real images next to the repository; none of it belongs to the project."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data are not here: no folder {folder}")
    return folder


# Few and small: 2D images in PNG files, volumes with regions in TIFF files.
_TINY_CONFIG = """
from cellcount_jax import config as settings
from cellcount_jax import variants


def get_config(variant=""):
    config = settings.default_config()
    config.name = "tiny"
    config.data.dir = {folder!r}
    if variant == "3d":
        variants.use_volumes(config)
        config.data.kind = "volumes"
        config.data.region = "y<24"
        config.data.held_out_region = "y>=28"
        config.model.strides = ((1, 2, 2),)
        config.model.attention = "none"
        config.consistency.weight = 0.0
        config.train.crop = (8, 16, 16)
    else:
        config.data.kind = "folder"
        config.train.crop = (16, 16)
        config.train.evaluate_every = 80
    config.model.features = 4
    config.model.levels = 2
    config.target.max_distance = 8.0
    config.optim.learning_rate = 1e-2
    config.train.steps = 160
    config.train.scan_length = 2
    config.train.checkpoint_every = 16
    config.evaluation.overlays = 1
    return config
"""


def _cells(
    seed: int, shape: Sequence[int], spacing: Sequence[float], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bright Gaussian cells at least 5 um apart on a noisy background, and their centres."""
    rng = np.random.default_rng(seed)
    edges = np.asarray(spacing)
    centres: list[np.ndarray] = []
    while len(centres) < count:
        centre = rng.uniform(1, np.subtract(shape, 2))
        if all(np.linalg.norm((centre - other) * edges) > 5 for other in centres):
            centres.append(centre)
    grid = np.moveaxis(np.indices(shape), 0, -1)
    image = rng.normal(30, 4, shape)
    for centre in centres:
        image += 150 * np.exp(-np.square((grid - centre) * edges).sum(-1) / 4.5)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), np.asarray(centres, np.float32)


@pytest.fixture(scope="session")
def cells_2d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one's own: 4 labelled, 2 unlabelled and 2 test images of 40x40."""
    folder = tmp_path_factory.mktemp("cells_2d")
    names = ["a0", "a1", "a2", "a3", "u0", "u1", "test/t0", "test/t1"]
    for seed, name in enumerate(names):
        image, points = _cells(seed, (40, 40), (1, 1), 8)
        write_image(folder / f"{name}.png", image)
        if not name.startswith("u"):
            write_points(folder / f"{name}.csv", points)
    return folder


@pytest.fixture(scope="session")
def cells_3d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1 labelled, 1 unlabelled and 1 test volume of 12x40x40, voxels of 2 x 1 x 1 um."""
    folder, spacing = tmp_path_factory.mktemp("cells_3d"), (2.0, 1.0, 1.0)
    for seed, part in enumerate(("train", "test", "unlabeled")):
        image, points = _cells(seed, (12, 40, 40), spacing, 20)
        write_image(folder / part / f"{part}.tif", image, spacing=spacing)
        if part != "unlabeled":
            write_points(folder / part / f"{part}.csv", points)
    return folder


@pytest.fixture(scope="session")
def config_file_2d(tmp_path_factory: pytest.TempPathFactory, cells_2d: Path) -> Path:
    """A config file for `cells_2d`."""
    path = tmp_path_factory.mktemp("configs_2d") / "tiny.py"
    path.write_text(_TINY_CONFIG.format(folder=str(cells_2d)))
    return path


@pytest.fixture
def config_2d(config_file_2d: Path) -> ml_collections.ConfigDict:
    """The settings of `config_file_2d`; a test may change them."""
    return _load(config_file_2d, "")


@pytest.fixture(scope="session")
def run_2d(tmp_path_factory: pytest.TempPathFactory, config_file_2d: Path) -> Path:
    """The workdir of a finished and undisturbed run of `config_2d`; not to be changed."""
    workdir = tmp_path_factory.mktemp("runs") / "whole_2d"
    with _quickly():
        assert train.train_and_evaluate(_load(config_file_2d, ""), workdir) is not None
    return workdir


@pytest.fixture(scope="session")
def run_3d(tmp_path_factory: pytest.TempPathFactory, cells_3d: Path) -> Path:
    """The workdir of a finished run on `cells_3d`; not to be changed."""
    folder = tmp_path_factory.mktemp("runs_3d")
    (folder / "tiny.py").write_text(_TINY_CONFIG.format(folder=str(cells_3d)))
    with _quickly():
        assert train.train_and_evaluate(_load(folder / "tiny.py", "3d"), folder / "run") is not None
    return folder / "run"


@pytest.fixture(scope="session")
def untrained_model() -> Callable[..., TrainedModel]:
    """Makes a small model of one channel, in milliseconds: nothing is compiled or trained.

    Its weights are random, or 0: then its map is 0 and it finds nothing. Voxels are of 1 um, and
    further settings are given with a double underscore for a dot.
    """

    def make(ndim: int, *, zero: bool = False, **changes: Any) -> TrainedModel:
        config = settings.default_config()
        if ndim == 3:
            variants.use_volumes(config)
            config.model.strides = ((1, 2, 2),)
        config.model.levels, config.model.features = 2, 2
        config.model.attention = "none"
        config.data.normalisation = "standardise"
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
        create = functools.partial(initial_variables, config=config, channels=1)
        rng = np.random.default_rng(0)

        def fill(path: Any, leaf: Any) -> np.ndarray:
            if zero:
                return np.zeros(leaf.shape, leaf.dtype)
            if path[-1].key in ("scale", "var"):
                return np.ones(leaf.shape, leaf.dtype)
            return rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype)

        shapes = jax.eval_shape(create, jax.random.key(0))
        return TrainedModel(
            config=config,
            step=1,
            variables=jax.tree_util.tree_map_with_path(fill, shapes),
            normalisation=Normalisation("standardise"),
            channels=1,
            spacing=(1.0,) * ndim,
            spacing_known=False,
            thresholds={"peaks": 0.002},
        )

    return make


def _load(path: Path, variant: str) -> ml_collections.ConfigDict:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config: ml_collections.ConfigDict = module.get_config(variant)
    return config


# A process that gets a signal when it is about to save the checkpoint of a step: whoever looks from
# outside for the moment at which to send it may come too late.
_SIGNALLED = """
import os, runpy, sys
from cellcount_jax.training import run_folder

save = run_folder.save

def signalled(folder, step, tree, **options):
    if step == {step}:
        os.kill(os.getpid(), {number:d})
    save(folder, step, tree, **options)

run_folder.save = signalled
runpy.run_module("cellcount_jax.{name}", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="session")
def start_module() -> Callable[..., subprocess.Popen[str]]:
    """Starts `python -m cellcount_jax.<name> ARGUMENTS` at the repository's root.

    With `gets=(signal, step)` it gets the signal when it is about to save that step.
    """

    def start(
        name: str,
        *arguments: str | Path,
        devices: int = 1,
        gets: tuple[signal.Signals, int] | None = None,
    ) -> subprocess.Popen[str]:
        program = ["-m", f"cellcount_jax.{name}"]
        if gets is not None:
            program = ["-c", _SIGNALLED.format(name=name, number=gets[0], step=gets[1])]
        flags = f"--xla_force_host_platform_device_count={devices}" if devices > 1 else ""
        return subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=ROOT,
            env={
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
                "XLA_FLAGS": flags,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def run_module(
    start_module: Callable[..., subprocess.Popen[str]],
) -> Callable[..., tuple[int, str, str]]:
    """Runs a module to its end, options as for `start_module`: exit status, stdout and stderr."""

    def run(name: str, *arguments: str | Path, **options: Any) -> tuple[int, str, str]:
        process = start_module(name, *arguments, **options)
        out, errors = process.communicate(timeout=300)
        return process.returncode, out, errors

    return run


@pytest.fixture(scope="session")
def display() -> Iterator[Callable[[Path], dict[str, str]]]:
    """A display of its own: the environment of a process with windows, and settings in a folder."""
    # Not imported here, where warnings are errors: the packages of napari have some.
    if not all(importlib.util.find_spec(name) for name in ("napari", "qtpy")):
        pytest.skip("napari is not installed (the extra `label`)")
    if not shutil.which("Xvfb"):
        pytest.skip("Xvfb is not installed")
    reader, writer = os.pipe()
    with subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1500x1000x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        os.close(writer)
        with os.fdopen(reader) as file:
            number = file.readline().strip()

        def shown(folder: Path) -> dict[str, str]:
            return {
                **os.environ,
                "DISPLAY": f":{number}",
                "QT_QPA_PLATFORM": "xcb",
                "LIBGL_ALWAYS_SOFTWARE": "1",
                "XDG_CONFIG_HOME": str(folder / "settings"),
                "NAPARI_CONFIG": str(folder / "settings" / "napari.yaml"),
                "PYTHONPATH": str(ROOT),
            }

        try:
            if not number:
                pytest.skip("Xvfb does not start")
            yield shown
        finally:
            server.terminate()
