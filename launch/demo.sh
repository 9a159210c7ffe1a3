#!/usr/bin/env bash
# Trains and evaluates a cell counter on generated images: nothing to download, minutes on 2 cores.
#
#   bash launch/demo.sh [--workdir=DIR] [--config.some.setting=VALUE ...]
#
# It makes .venv first where there is none. Results are in runs/demo unless --workdir says
# otherwise; a second start resumes. Arguments go to 'python -m cellcount_jax.main' as they are.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

source "$root/launch/setup_venv.sh"

workdir=(--workdir="$root/runs/demo")
for argument in "$@"; do
  case $argument in
    --workdir | --workdir=* | -workdir | -workdir=*) workdir=() ;;
  esac
done

exec python -m cellcount_jax.main --config="$root/configs/vgg.py:demo" ${workdir[@]+"${workdir[@]}"} "$@"
