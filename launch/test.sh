#!/usr/bin/env bash
# Runs the tests in .venv, which it makes first where there is none.
#
#   bash launch/test.sh [pytest arguments, paths from the repository root]
#
# Without arguments all tests run, in as many processes as there are cores, four at most.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

EXTRAS="test${EXTRAS:+,$EXTRAS}" source launch/setup_venv.sh

if (($# == 0)); then set -- --numprocesses=auto --maxprocesses=4 --dist=loadfile; fi

exec python -m pytest "$@"
