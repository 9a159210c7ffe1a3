#!/usr/bin/env bash
# Makes .venv in the repository root and installs the package into it, pinned by constraints.txt.
#
#   bash launch/setup_venv.sh          makes or updates it
#   source launch/setup_venv.sh        the same, and activates it
#
# EXTRAS   extras to install, separated by commas (EXTRAS=cuda, EXTRAS=test,tensorboard); none by default
# PYTHON   the interpreter to use; by default the first of the list below that runs and fits
#
# When nothing has changed since the last time, this takes well under a second. It runs on Linux, on
# macOS and in Git Bash on Windows; in PowerShell launch/setup_venv.ps1 does the same.

if [[ "${BASH_SOURCE[0]}" != "$0" ]]; then
  # The work is done in a process of its own: a failure must not close the shell that sources this.
  bash "${BASH_SOURCE[0]}" || return 1
  if [[ -d "$(dirname "${BASH_SOURCE[0]}")/../.venv/Scripts" ]]; then # Windows
    # shellcheck source=/dev/null
    source "$(dirname "${BASH_SOURCE[0]}")/../.venv/Scripts/activate"
  else
    # shellcheck source=/dev/null
    source "$(dirname "${BASH_SOURCE[0]}")/../.venv/bin/activate"
  fi
  return
fi

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
venv=$root/.venv
stamp=$venv/cellcount_jax.stamp # line 1: root, line 2: hash, then one line for each set of extras
extras=${EXTRAS:-}

say() { printf 'setup_venv: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

version_of() { # prints 3.12; fails where the command is missing or does not run (a pyenv shim)
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null
}
supported() { [[ "$1" =~ ^3\.1[123]$ ]]; }
venv_python() { # prints where the .venv has its interpreter
  if [[ -e "$venv/Scripts/python.exe" ]]; then echo "$venv/Scripts/python.exe"; else echo "$venv/bin/python"; fi
}
checksum() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; } # macOS
has_ensurepip() { "$1" -c 'import ensurepip, venv' 2>/dev/null </dev/null; }

find_python() { # sets python and version
  local candidate found="" seen=""
  if [[ -n "${PYTHON:-}" ]]; then
    python=$PYTHON
    version=$(version_of "$python") || die "PYTHON=$PYTHON does not run; give a Python 3.11 to 3.13."
    supported "$version" || die "PYTHON=$PYTHON is Python $version; a Python 3.11 to 3.13 is needed."
    return
  fi
  for candidate in python3.12 python3.11 python3.13 python3 python; do
    version=$(version_of "$candidate") || continue
    seen+=" $candidate is $version;"
    supported "$version" || continue
    python=$candidate
    if has_ensurepip "$python"; then return; fi
    found=${found:-$candidate}
  done
  [[ -n "$found" ]] || die "a Python 3.11 to 3.13 is needed (found:${seen:- none}). Install one, or name it: PYTHON=/path/to/python3.12"
  python=$found
  version=$(version_of "$python")
}

make_venv() { # $1: why
  find_python
  has_ensurepip "$python" || die "$python cannot make virtual environments. On Debian or Ubuntu: apt-get install -y python$version-venv"
  say "$1: making .venv with Python $version"
  "$python" -m venv --clear "$venv"
}

if [[ ! -e "$venv" ]]; then
  make_venv "no .venv yet"
elif ! "$(venv_python)" -m pip --version >/dev/null 2>&1 </dev/null; then
  make_venv "the .venv is incomplete"
elif [[ -f "$stamp" && "$(head -n 1 "$stamp")" != "$root" ]]; then
  # Its commands, and the package it imports, would be those of the other checkout.
  make_venv "the .venv was copied from $(head -n 1 "$stamp")"
elif [[ -n "${PYTHON:-}" ]]; then
  find_python
  have=$(version_of "$(venv_python)")
  if [[ "$have" != "$version" ]]; then make_venv "PYTHON asks for $version and the .venv has $have"; fi
fi

version=$(version_of "$(venv_python)")
supported "$version" || die "$venv has Python $version; a Python 3.11 to 3.13 is needed. Delete that folder and start again."

hash=$({ cat setup.cfg setup.py pyproject.toml constraints.txt; echo "$version"; } | checksum | cut -d ' ' -f 1)
fresh_stamp=$(printf '%s\n%s' "$root" "$hash")
if [[ -f "$stamp" && "$(head -n 2 "$stamp")" == "$fresh_stamp" ]]; then
  if tail -n +3 "$stamp" | grep -qxF "[$extras]"; then exit 0; fi
else
  rm -f "$stamp" # what is installed now changes, so no earlier set of extras counts
fi

target=.${extras:+[$extras]}
say "installing cellcount_jax${extras:+[$extras]} into .venv (Python $version; minutes the first time)"
"$(venv_python)" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e "$target" </dev/null ||
  die "the installation failed (see above); the same command tries again."
[[ -f "$stamp" ]] || printf '%s\n' "$fresh_stamp" >"$stamp"
printf '[%s]\n' "$extras" >>"$stamp"
