#!/usr/bin/env bash
# Makes a bundled model anew: its images, training, threshold, the model file and its scores.
#
#   bash launch/models.sh nuclei2d            # or nuclei_he, microglia3d, nuclei3d
#
# Reads ../shared/data (or DATA=...), works in runs/models/NAME, where a run that was stopped goes
# on, and writes cellcount_jax/models/NAME.zip and results/models/NAME*.json. Pictures of hits,
# misses and false cells are in runs/models/NAME/scored*/score.html.
set -euo pipefail
cd "$(dirname "$0")/.."
name=${1:?the name of a model: nuclei2d, nuclei_he, microglia3d or nuclei3d}
data=${DATA:-../shared/data}
work=runs/models/$name
export PATH="$PWD/.venv/bin:$PATH"

images() { # images SET FOLDER
    [ -d "$2" ] && return
    rm -rf "$2.part"
    python launch/model_images.py "$1" "$2.part" --data "$data"
    mv "$2.part" "$2"
}

score() { # score TEST_FOLDER RESULT [OPTIONS of cellcount score]
    local files=("$1"/*.csv) counted=$work/counted_$2 scored=$work/scored_$2
    cellcount count "${files[@]/%.csv/.tif}" --model "$model" --output "$counted" --overwrite
    rm -rf "$scored"
    cellcount score "$counted" "$1" --output "$scored" "${@:3}"
    mkdir -p results/models
    python -c 'import json, sys
kept = {k: v for k, v in json.load(open(sys.argv[1])).items() if not isinstance(v, list)}
json.dump(kept, open(sys.argv[2], "w"), indent=2)' "$scored/scores.json" "results/models/$2.json"
}

case $name in
    nuclei3d) config=configs/nuclei3d.py folder=$data/lightsheet_cfos ;;
    *) config=configs/$name.py folder=$work/images && images "$name" "$folder" ;;
esac
python -m cellcount_jax.main --config="$config" --config.data.dir="$folder" --workdir="$work/run"
model=$work/run
if [ -d "$folder/validation" ]; then
    cellcount calibrate "$folder/validation" --model "$work/run" --output "$work/$name.zip" --overwrite
    model=$work/$name.zip
fi
cellcount export "$model" "cellcount_jax/models/$name.zip" --overwrite --card "docs/models/$name.md"

case $name in
    nuclei2d) score "$data/nuclei2d/test" nuclei2d ;;
    nuclei_he)
        score "$data/nuclei_he/test" nuclei_he
        images mbm_test "$work/mbm_test"
        score "$work/mbm_test" nuclei_he_mbm --tolerance 8px
        ;;
    microglia3d) score "$data/lightsheet_microglia/test" microglia3d --tolerance 12um ;;
    nuclei3d) score "$data/lightsheet_cfos/test" nuclei3d --tolerance 8um ;;
esac
