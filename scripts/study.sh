#!/usr/bin/env bash
# The training study of analysis/study, whole, from a clone: text, shards, three trained models and a standard one that is
# wrapped, probes of every saved step, study.h5, its page and figures. Interrupted, it goes on where it was.
#
#   scripts/study.sh
#
# Settings, from the environment:
#   PYTHON      a Python with tokenizers and numpy, for figures also h5py and matplotlib; without it a virtual environment is
#               made in shards/study/venv from the Python package index
#   SEEDS       "1 2 3": one run each
#   SEQUENCES   32 of the run's 64 probe sequences
#   CONTROLS    2: draws of the mass-matched control of every slice
#   FINAL       mask,mean,resample,freeze: ablations of the last step, in runs/study-SEED/final.h5 (zero is mask once more:
#               analysis/README.md); every saved step is probed with mask alone
#   STANDARD    "train.steps=400 checkpoint.every=400": of the standard model, which is there to be wrapped
#   BIAS        4: of the wrapped model, on the current source's logit
#   OUT         analysis/study
# Any further arguments are for routescope-train, of every model ("train.steps=100 ..." makes another, shorter study).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=phases.sh
source "$(dirname "$0")/phases.sh"
cd "$(dirname "$0")/.."

read -r -a seeds <<<"${SEEDS:-1 2 3}"
[[ ${#seeds[@]} -gt 0 ]] || fail "SEEDS: found none, expected at least one" 2
measure=(--sequences "${SEQUENCES:-32}" --controls "${CONTROLS:-2}")
final=${FINAL:-mask,mean,resample,freeze}
read -r -a standard_keys <<<"${STANDARD:-train.steps=400 checkpoint.every=400}"
bias=${BIAS:-4}
out=${OUT:-analysis/study}
shards=shards/study
bin=build/bin
about="documentation of Linux, Python and Perl (Debian packages linux-doc, python3-doc and perl-doc)"

phase "packages"
scripts/install_packages.sh build study
python=${PYTHON:-}
if [[ -z $python ]]; then
  python=$shards/venv/bin/python
  if ! "$python" -c "import tokenizers, numpy, h5py, matplotlib" 2>/dev/null; then
    python3 -m venv "$shards/venv"
    "$shards/venv/bin/pip" install --quiet tokenizers numpy h5py matplotlib
  fi
fi
"$python" -c "import tokenizers, numpy" || fail "PYTHON: $python lacks the packages tokenizers and numpy"

phase "build"
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DROUTESCOPE_TESTS=OFF
cmake --build build

phase "text and shards"
if [[ -f $shards/tokens.json ]]; then
  echo "$shards/tokens.json: there already"
else
  # What an interrupted attempt left is no base for shards.
  rm -f "$shards"/train-*.bin "$shards/valid.bin"
  "$python" scripts/study_text.py --output "$shards/text"
  "$python" scripts/prepare_data.py --tokenizer "$shards/text/tokenizer.json" --input "$shards/text/documents.jsonl" \
    --valid-every 20 --output "$shards"
fi

# A finished run is found to be finished, an interrupted one goes on.
phase "train with routing: seeds ${seeds[*]}"
for seed in "${seeds[@]}"; do
  "$bin/routescope-train" configs/study.yaml "run.seed=$seed" "run.dir=runs/study-$seed" "$@"
done

phase "train without routing, and wrap"
"$bin/routescope-train" configs/study.yaml "run.seed=${seeds[0]}" run.dir=runs/study-standard model.residual=standard \
  checkpoint.log_spaced_until=0 "${standard_keys[@]}" "$@"
standard=$(find runs/study-standard/checkpoints -maxdepth 1 -name 'step-*' | sort | tail -n 1)
wrapped=runs/study-standard/wrapped-$bias-${standard##*-}
if [[ ! -d $wrapped ]]; then
  "$bin/routescope-model" wrap --model "$standard" --bias "$bias" --num-blocks 6 --out "$wrapped"
fi

phase "probe every saved step"
for seed in "${seeds[@]}"; do
  run=runs/study-$seed
  # The last step first, with the atlas; what has a row is not probed again.
  "$bin/routescope-analyze" probe --run "$run" --step latest --atlas "${measure[@]}"
  "$bin/routescope-analyze" track --run "$run" "${measure[@]}"
  "$bin/routescope-analyze" probe --run "$run" --step latest --ablation "$final" "${measure[@]}" --out "$run/final.h5"
done

phase "probe the wrapped model, on the same tokens"
baseline=$wrapped.h5
"$bin/routescope-analyze" probe --model "$wrapped" --tokens "runs/study-${seeds[0]}/routing.h5" "${measure[@]}" --out "$baseline"

phase "the study's file, page and figures"
runs=()
for seed in "${seeds[@]}"; do
  runs+=(--run "runs/study-$seed")
done
"$bin/routescope-analyze" compare "${runs[@]}" --baseline "$baseline" --about "$about" --out "$out"
if "$python" -c "import h5py, matplotlib" 2>/dev/null; then
  "$python" scripts/figures.py --analysis "$out/study.h5" --out "$out/figures" --format svg
else
  echo "study.sh: no h5py or matplotlib in $python: figures for papers were not drawn (scripts/figures.py)"
fi
for seed in "${seeds[@]}"; do
  "$bin/routescope-analyze" report --run "runs/study-$seed" --baseline "$baseline"
done
phase_end

cat <<END

$out/
  index.html     the study, to open in a browser
  study.h5       its numbers (data/formats/study.md)
  figures/       for papers, with captions.md
runs/study-*/report.html   each run by itself
END
printf 'all of it took %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
