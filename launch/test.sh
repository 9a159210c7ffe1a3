#!/usr/bin/env bash
# Runs the tests in .venv, which it makes first where there is none.
#
#   bash launch/test.sh [pytest arguments, paths from the repository root]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

EXTRAS="test${EXTRAS:+,$EXTRAS}" source launch/setup_venv.sh

exec python -m pytest "$@"
