#!/usr/bin/env bash
# The poster's studies on av_mnist_fsdd, resumable:  benchmarks/real/poster.sh SOURCE [OUT]
# SOURCE holds a folder av_mnist_fsdd of raw data, as for run.sh. In two parts, because the ablation gets more seeds.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=${1:?folder that holds av_mnist_fsdd}
out=${2:-runs/real}
python=${PYTHON:-$here/../../.venv/bin/python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # small models: more threads only get in each other's way
data=$out/data/av_mnist_fsdd.npz
[ -f "$data" ] || "$python" "$here/prepare.py" av_mnist_fsdd --source "$source/av_mnist_fsdd" --out "$data"
study() {  # NAMES SEEDS OPTIONS...
  "$python" -m counterpoise study "$1" --config "$here/av_mnist_fsdd.yaml" --data "$data" \
    --schedule Constant --epochs "${EPOCHS:-24}" --seeds "$2" --jobs "${JOBS:-2}" --out "$out/poster" "${@:3}"
}
study ablation,imbalance "${ABLATION_SEEDS:-0,1,2,3,4}"
study gradient-change,interaction,singular-values,scope,sensitivity,landscape "${SEEDS:-0,1,2}" \
  --landscape.samples 256 --landscape.points 11
"$python" "$here/summarise_poster.py" "$out/poster" --docs "${DOCS:-$here/../../docs/benchmarks}"
