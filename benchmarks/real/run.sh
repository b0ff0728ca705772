#!/usr/bin/env bash
# The comparison on real data from end to end, resumable:  benchmarks/real/run.sh SOURCE [OUT] [SET...]
# SOURCE holds a folder of raw data for each set. In the background:  nohup benchmarks/real/run.sh SOURCE > real.log &
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=${1:?folder that holds av_mnist_fsdd, mosi_bclstm and sarcasm_text_attr}
out=${2:-runs/real}
sets=("${@:3}")
[ ${#sets[@]} -gt 0 ] || sets=(mosi_bclstm sarcasm_text_attr av_mnist_fsdd)
python=${PYTHON:-$here/../../.venv/bin/python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # small models: more threads only get in each other's way
for set in "${sets[@]}"; do
  [ -f "$out/data/$set.npz" ] || "$python" "$here/prepare.py" "$set" --source "$source/$set" --out "$out/data/$set.npz"
  [ -f "$out/$set/settings.yaml" ] || "$python" "$here/tune.py" --config "$here/$set.yaml" --data "$out/data/$set.npz" \
    --out "$out/$set" --jobs "${JOBS:-2}" ${METHODS:+--methods "$METHODS"}
  "$python" -m counterpoise benchmark --config "$here/$set.yaml" --data "$out/data/$set.npz" \
    --settings "$out/$set/settings.yaml" --methods settings --seeds "${SEEDS:-0,1,2,3,4}" --jobs "${JOBS:-2}" \
    --out "$out/$set"
  "$python" "$here/summarise.py" "$out/$set" --config "$here/$set.yaml" --docs "${DOCS:-$here/../../docs/benchmarks}"
done
