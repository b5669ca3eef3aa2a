#!/usr/bin/env bash
# The whole training study of analysis/study, from a clone: text, shards, three trained models and a standard one that is
# wrapped, probes of every saved step, study.h5 and its page. Start it again after an interruption, and it resumes.
#
#   scripts/study.sh
#
# Settings, from the environment:
#   PYTHON      a Python with the package tokenizers; without PYTHON a virtual environment is made in shards/study/venv from
#               the Python package index
#   SEEDS       the seeds, one run each ("1 2 3")
#   SEQUENCES   how many of the run's 64 probe sequences are used (32)
#   CONTROLS    draws of the mass-matched control of every slice (2)
#   FINAL       ablations of the last step, in runs/study-SEED/final.h5 (mask,mean,resample,freeze; zero is the same as mask:
#               analysis/README.md); every other saved step is probed with mask alone
#   STANDARD    keys of the standard model, which is trained to be wrapped ("train.steps=400 checkpoint.every=400")
#   BIAS        bias on the current source's logit in the wrapped model (4)
#   OUT         where the results go (analysis/study)
# Further arguments go to routescope-train for every model ("train.steps=100 ..." makes another, shorter study).
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
  if ! "$python" -c "import tokenizers" 2>/dev/null; then
    python3 -m venv "$shards/venv"
    "$shards/venv/bin/pip" install --quiet tokenizers
  fi
fi
"$python" -c "import tokenizers" || fail "PYTHON: $python lacks the package tokenizers"

phase "build"
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DROUTESCOPE_TESTS=OFF
cmake --build build

phase "text and shards"
if [[ -f $shards/tokens.json ]]; then
  echo "$shards/tokens.json: exists"
else
  # Remove the shards of an interrupted attempt.
  rm -f "$shards"/train-*.bin "$shards/valid.bin"
  "$python" scripts/study_text.py --output "$shards/text"
  "$python" scripts/prepare_data.py --tokenizer "$shards/text/tokenizer.json" --input "$shards/text/documents.jsonl" \
    --valid-every 20 --output "$shards"
fi

# routescope-train does nothing for a finished run and resumes an interrupted one.
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
  # The last step comes first, with the atlas. Steps that have a row are not probed again.
  "$bin/routescope-analyze" probe --run "$run" --step latest --atlas "${measure[@]}"
  "$bin/routescope-analyze" track --run "$run" "${measure[@]}"
  "$bin/routescope-analyze" probe --run "$run" --step latest --ablation "$final" "${measure[@]}" --out "$run/final.h5"
done

phase "probe the wrapped model, on the same tokens"
baseline=$wrapped.h5
"$bin/routescope-analyze" probe --model "$wrapped" --tokens "runs/study-${seeds[0]}/routing.h5" "${measure[@]}" --out "$baseline"

phase "the study's file and page"
runs=()
for seed in "${seeds[@]}"; do
  runs+=(--run "runs/study-$seed")
done
"$bin/routescope-analyze" compare "${runs[@]}" --baseline "$baseline" --about "$about" --out "$out"
for seed in "${seeds[@]}"; do
  "$bin/routescope-analyze" report --run "runs/study-$seed" --baseline "$baseline"
done
phase_end

cat <<END

$out/
  index.html     the study, to open in a browser
  study.h5       its numbers (data/formats/study.md)
runs/study-*/report.html   each run by itself
END
printf 'in all %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
