"""What `quarter_hour.py` needs on a machine without a network, in a folder.

Images, wheels and run.sh, which is started from the root of a checkout: that travels too, and
counts into the size. On the machine run.sh puts what it lacks into a temporary folder, by pip's own
rules; what is installed there and new enough stays in use.
"""

from __future__ import annotations

import argparse
import configparser
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import quarter_hour_images
from ablation_run import ROOT

from cellcount_jax.errors import InputError

LIMIT = 64.0  # MiB, of pack and checkout
# Packages of a machine with JAX and PyTorch for its accelerator: jax and what it brings, and the
# large ones that come with flax and torchvision.
HAS = ("jax", "jaxlib", "ml-dtypes", "numpy", "opt-einsum", "scipy")
HAS += ("pillow", "tensorstore", "uvloop")
# Needed by no part: the images are compressed by deflate alone, which tifffile can by itself.
UNUSED = ("imagecodecs",)
PYTHON = "3.12"
_PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64")
_NAMED = 8  # largest files, where there is too much

RUN = """\
#!/usr/bin/env bash
# From the root of a checkout of cellcount_jax, on the machine with the accelerator:
#     bash PACK/run.sh [options of benchmarks/quarter_hour.py]
set -euo pipefail
pack=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
pip=("$python" -m pip --disable-pip-version-check --no-cache-dir --quiet install --no-index)
# Names and versions of what this machine lacks; an error names a package that the pack lacks too.
lacking=$("${pip[@]}" --dry-run --report - --find-links "$pack/wheels" -r "$pack/requirements.txt" |
  "$python" -c 'import json, sys
for one in json.load(sys.stdin)["install"]:
    print(one["metadata"]["name"] + "==" + one["metadata"]["version"])')
export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
if [[ -n "$lacking" ]]; then
  # shellcheck disable=SC2086
  "${pip[@]}" --no-deps --find-links "$pack/wheels" --target "$site" $lacking
fi
"${pip[@]}" --no-deps --no-build-isolation --target "$site" .
"$python" benchmarks/quarter_hour.py --data="$pack/data" "$@"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of packing."""
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="a new one; runs no part")
    parser.add_argument(
        "--has",
        nargs="*",
        default=list(HAS),
        metavar="PACKAGE",
        help="with --pack: what the machine has, and is left out (%(default)s)",
    )


def pack(options: argparse.Namespace) -> str:
    """Makes the folder.

    Args:
      options: `pack`, a folder that is not there yet; `has`; and `data`, all images.

    Returns:
      How large it is, and how it is used.

    Raises:
      InputError: the folder is there, images are missing, a package cannot be had, or it is too
        large.
    """
    folder: Path = options.pack
    if folder.exists():
        raise InputError(f"{folder}: is there already; delete it or name another folder.")
    copy_images(options.data, folder / "data")
    needed = requirements()
    (folder / "requirements.txt").write_text("\n".join([*needed, ""]))
    fetch(resolved(needed, without=options.has), folder / "wheels")
    (folder / "run.sh").write_text(RUN)
    return check_size(folder, checkout())


def copy_images(data: Path, folder: Path) -> None:
    """Copies the images that the parts read.

    Args:
      data: with `vgg` and `nuclei2d`.
      folder: a new one.

    Raises:
      InputError: they are not there.
    """
    wanted = {
        f"{quarter_hour_images.PREPARED}/{name}": path
        for name, path in quarter_hour_images.layout(data).items()
    }
    wanted |= {f"vgg/{path.name}": path for path in sorted((data / "vgg").glob("*.png"))}
    if not any(name.startswith("vgg/") for name in wanted):
        raise InputError(f"{data / 'vgg'}: has no images.")
    for name, path in wanted.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)


def requirements() -> list[str]:
    """What the package needs, and setuptools, which installs it."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["options"]["install_requires"].split()
    return [line for line in lines if not line.startswith(UNUSED)] + ["setuptools>=68"]


def resolved(needed: Sequence[str], *, without: Sequence[str]) -> list[str]:
    """`name==version` of what is to be installed, dependencies included.

    Args:
      needed: requirements.
      without: names that are left out, but not what only they need.

    Raises:
      InputError: pip finds no versions that fit.
    """
    with tempfile.TemporaryDirectory() as target:
        report = _pip(
            *("install", "--dry-run", "--ignore-installed", "--report=-", f"--target={target}"),
            *_FOR,
            f"--constraint={ROOT / 'constraints.txt'}",
            *needed,
        )
    left_out = {_plain(name) for name in without}
    found = ((one["metadata"]["name"], one["metadata"]["version"]) for one in _installs(report))
    return sorted(f"{name}=={version}" for name, version in found if _plain(name) not in left_out)


def fetch(packages: Sequence[str], folder: Path) -> None:
    """Downloads wheels of packages, and not of what they need."""
    folder.mkdir(parents=True)
    if packages:
        _pip("download", "--no-deps", f"--dest={folder}", *_FOR, *packages)


def checkout() -> list[Path]:
    """The files of the checkout that travel, as git has them."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"{ROOT}: git cannot tell which files travel: {error}") from error
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def check_size(folder: Path, others: Sequence[Path] = (), *, limit: float = LIMIT) -> str:
    """Says how large a pack is, and what to do with it.

    Args:
      folder: the pack.
      others: files that travel with it.
      limit: of all, MiB.

    Raises:
      InputError: it is too large; the largest files are named.
    """
    inside = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    around = {p: p.stat().st_size for p in others if not p.is_relative_to(folder.resolve())}
    parts = {
        name: _mib(sum(size for path, size in inside.items() if path.is_relative_to(folder / name)))
        for name in ("data", "wheels")
    }
    total = _mib(sum(inside.values())) + _mib(sum(around.values()))
    said = (
        f"{folder}: {_mib(sum(inside.values())):.1f} MiB (images {parts['data']:.1f}, wheels"
        f" {parts['wheels']:.1f}), with the {_mib(sum(around.values())):.1f} of the checkout"
        f" {total:.1f} of at most {limit:g}"
    )
    if total > limit:
        largest = sorted((inside | around).items(), key=lambda item: -item[1])[:_NAMED]
        names = ", ".join(f"{path.name} {_mib(size):.1f}" for path, size in largest)
        raise InputError(
            f"{said}: too much. The largest files (MiB): {names}. Leave out packages that the"
            " machine has with --has."
        )
    return f"{said}\nthere, from the checkout's root: bash {folder}/run.sh"


_FOR = (
    *("--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"),
    *(f"--platform={platform}" for platform in _PLATFORMS),
)


def _pip(*arguments: str) -> str:
    """The output of pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise InputError("pip: " + " ".join(lines or [f"exit status {done.returncode}"]))
    return done.stdout


def _installs(report: str) -> list[dict[str, dict[str, str]]]:
    found: list[dict[str, dict[str, str]]] = json.loads(report)["install"]
    return found


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def _mib(size: int) -> float:
    return size / 2**20
