#!/usr/bin/env bash
# The whole training study of analysis/study, from a clone: text, shards, models of two forms of sources and five seeds, a
# standard model that is wrapped, probes of every saved step, a study.h5 and a page for either form. Start it again after an
# interruption, and it resumes.
#
#   scripts/study.sh
#
# Settings, from the environment:
#   PYTHON      a Python with the package tokenizers; without PYTHON a virtual environment is made in shards/study/venv from
#               the Python package index
#   FORMS       forms of the sources (block_sum cumulative)
#   SEEDS       the seeds, one run of each form each ("1 2 3 4 5")
#   SEQUENCES   how many of the run's 64 probe sequences are used (64)
#   STANDARD    keys of the standard model, which is trained to be wrapped ("train.steps=400 checkpoint.every=400")
#   BIAS        bias on the current source's logit in the wrapped model (4)
#   OUT         where the results go: OUT/FORM (analysis/study)
# Further arguments go to routescope-train for every model ("train.steps=100 ..." makes another, shorter study).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=phases.sh
source "$(dirname "$0")/phases.sh"
cd "$(dirname "$0")/.."

read -r -a forms <<<"${FORMS:-block_sum cumulative}"
read -r -a seeds <<<"${SEEDS:-1 2 3 4 5}"
[[ ${#forms[@]} -gt 0 ]] || fail "FORMS: found none, expected at least one" 2
[[ ${#seeds[@]} -gt 0 ]] || fail "SEEDS: found none, expected at least one" 2
preregistration=analysis/study/preregistration.md
measure=(--sequences "${SEQUENCES:-64}" --preregistration "$preregistration")
read -r -a standard_keys <<<"${STANDARD:-train.steps=400 checkpoint.every=400}"
bias=${BIAS:-4}
out=${OUT:-analysis/study}
shards=shards/study
runs=runs/study
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
phase "train with routing: ${forms[*]}, seeds ${seeds[*]}"
for seed in "${seeds[@]}"; do
  for form in "${forms[@]}"; do
    "$bin/routescope-train" configs/study.yaml "run.seed=$seed" "run.dir=$runs/$form-$seed" \
      "model.attn_res.source=$form" "$@"
  done
done

phase "train without routing, and wrap"
"$bin/routescope-train" configs/study.yaml "run.seed=${seeds[0]}" "run.dir=$runs/standard" model.residual=standard \
  "${standard_keys[@]}" "$@"
standard=$(find "$runs/standard/checkpoints" -maxdepth 1 -name 'step-*' | sort | tail -n 1)
wrapped=$runs/wrapped-$bias
if [[ ! -d $wrapped ]]; then
  "$bin/routescope-model" wrap --model "$standard" --bias "$bias" --num-blocks 6 --out "$wrapped"
fi

# The last step comes first, with the atlas. Steps that have a row are not probed again.
phase "probe every saved step"
for form in "${forms[@]}"; do
  for seed in "${seeds[@]}"; do
    "$bin/routescope-analyze" probe --run "$runs/$form-$seed" --step latest --atlas "${measure[@]}"
    "$bin/routescope-analyze" track --run "$runs/$form-$seed" "${measure[@]}"
  done
done

phase "probe the wrapped model, on the same tokens"
"$bin/routescope-analyze" probe --model "$wrapped" --tokens "$runs/${forms[0]}-${seeds[0]}/routing.h5" \
  "${measure[@]}" --out "$wrapped.h5"

phase "the studies' files and pages"
for form in "${forms[@]}"; do
  of_form=()
  for seed in "${seeds[@]}"; do
    of_form+=(--run "$runs/$form-$seed")
  done
  "$bin/routescope-analyze" compare "${of_form[@]}" --baseline "$wrapped.h5" --about "$about; sources $form" \
    --out "$out/$form"
done
phase_end

cat <<END

$out/FORM/
  index.html     the study, to open in a browser
  study.h5       its numbers (data/formats/study.md)
$runs/FORM-SEED  each run by itself
END
printf 'in all %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
