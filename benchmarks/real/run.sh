#!/usr/bin/env bash
# The comparison on real data from end to end, resumable:  benchmarks/real/run.sh SOURCE [OUT] [SET...]
# SOURCE holds a folder of raw data for each set. In the background:  nohup benchmarks/real/run.sh SOURCE > real.log &
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
source=${1:?folder that holds a folder of raw data for each set}
out=${2:-runs/real}
sets=("${@:3}")
[ ${#sets[@]} -gt 0 ] || sets=(pie handwritten mosi_bclstm flipkart_products ravdess_fold0 mvsa_single sarcasm_text_attr
  av_mnist_fsdd propaganda_memes flipkart_prices)
python=${PYTHON:-$here/../../.venv/bin/python}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # small models: more threads only get in each other's way
for set in "${sets[@]}"; do
  raw=$source/$set data=$out/data/$set.npz options=()
  case $set in
    pie | handwritten) raw=$source/multiview ;;
    ravdess_fold0) raw=$source/ravdess_av ;;
    propaganda_memes | flipkart_prices)
      raw=$source/${set/prices/products} data=$out/data/$set.csv options=(--data.cache "$out/data/cache") ;;
  esac
  [ -f "$data" ] || "$python" "$here/prepare.py" "$set" --source "$raw" --out "$data"
  [ -f "$out/$set/settings.yaml" ] || "$python" "$here/tune.py" --config "$here/$set.yaml" --data "$data" \
    --out "$out/$set" --jobs "${JOBS:-2}" ${METHODS:+--methods "$METHODS"}
  "$python" -m counterpoise benchmark --config "$here/$set.yaml" --data "$data" \
    --settings "$out/$set/settings.yaml" --methods settings --seeds "${SEEDS:-0,1,2,3,4}" --jobs "${JOBS:-2}" \
    --out "$out/$set" ${options[@]+"${options[@]}"} ||
    [ -f "$out/$set/results.json" ]  # some runs diverged: the page says which
  if [ "$set" = flipkart_prices ]; then
    "$python" "$here/leak.py" --source "$raw" --out "$out/$set/leak" --jobs "${JOBS:-2}"
  fi
  "$python" "$here/summarise.py" "$out/$set" --config "$here/$set.yaml" --docs "${DOCS:-$here/../../docs/benchmarks}"
done
