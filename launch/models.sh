#!/usr/bin/env bash
# Makes a bundled model anew: its images, training, calibration, the model file and its score.
#
#   bash launch/models.sh nuclei2d            # or nuclei_he, microglia3d, nuclei3d
#
# Reads ../shared/data (or DATA=...), works in runs/models/NAME, and writes
# cellcount_jax/models/NAME.zip and results/models/NAME.json. A run that was stopped goes on.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?the name of a model: nuclei2d, nuclei_he, microglia3d or nuclei3d}
data=${DATA:-../shared/data}
work=runs/models/$name
python=.venv/bin/python
[ -x "$python" ] || python=python3

images=$work/images
if [ ! -d "$images" ]; then
    rm -rf "$images.part"
    "$python" launch/model_images.py "$name" "$images.part" --data "$data"
    mv "$images.part" "$images"
fi
"$python" -m cellcount_jax.main --config="configs/$name.py" --config.data.dir="$images" \
    --workdir="$work/run" "${@:2}"
"$python" -m cellcount_jax.cli export "$work/run" "cellcount_jax/models/$name.zip" \
    --card "docs/models/$name.md"
"$python" benchmarks/bundled_models.py "$name" --data "$data"
