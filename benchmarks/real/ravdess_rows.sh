#!/usr/bin/env bash
# Rows of the poster's table on RAVDESS, the nearest relative of CREMA-D, over its five published folds of whole
# actors, then the page:  benchmarks/real/ravdess_rows.sh DATA [OUT]
# DATA holds clips.csv and the folder audio. Started again, it goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${1:?folder with clips.csv and audio}
out=${2:-runs/real/ravdess_rows}
python=${PYTHON:-$here/../../.venv/bin/python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
"$python" -m counterpoise benchmark --config "$here/ravdess_av.yaml" --data.path "$data/clips.csv" \
  --data.cache "$out/cache" --encoders.audio.init_args.dim 128 --folds fold --settings "$here/ravdess_rows.yaml" \
  --methods "${METHODS:-Unimodal,Joint,OGM,MMPareto,MLA,IGM without SAM,IGM}" --seeds "${SEEDS:-0}" \
  --epochs "${EPOCHS:-10}" --jobs "${JOBS:-1}" --out "$out"
"$python" "$here/summarise_folds.py" "$out" --config "$here/ravdess_av.yaml" --page ravdess_rows \
  --docs "${DOCS:-$here/../../docs/benchmarks}"
