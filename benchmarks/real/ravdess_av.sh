#!/usr/bin/env bash
# Leave one actor of RAVDESS out at a time, then the page:  benchmarks/real/ravdess_av.sh DATA [OUT]
# DATA holds clips.csv and the folder audio. Started again, it goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${1:?folder with clips.csv and audio}
out=${2:-runs/real/ravdess_av}
python=${PYTHON:-$here/../../.venv/bin/python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
"$python" -m counterpoise benchmark --config "$here/ravdess_av.yaml" --data.path "$data/clips.csv" \
  --data.cache "$out/cache" --folds actor --methods "${METHODS:-Joint,Unimodal}" --seeds "${SEEDS:-0}" \
  --jobs "${JOBS:-1}" --out "$out"
"$python" "$here/summarise_folds.py" "$out" --config "$here/ravdess_av.yaml" --docs "${DOCS:-$here/../../docs/benchmarks}"
