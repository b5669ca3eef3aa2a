#!/usr/bin/env bash
# From a clone to a trained, recorded and probed model: installs packages, builds, tokenises English text, trains
# configs/quickstart.yaml, probes every checkpoint and writes the report.
#
#   scripts/quickstart.sh [--text FILE...]      your own UTF-8 text (plain, .gz, .bz2, .xz or .zst); its last 5 % are held out
#
# Without --text it takes the text of the package bible-kjv: the King James Bible, 4 MB, public domain. Start it again after an
# interruption, and it resumes.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=phases.sh
source "$(dirname "$0")/phases.sh"

files=()
if [[ ${1:-} == --text ]]; then
  shift
  files=("$@")
  [[ ${#files[@]} -gt 0 ]] || fail "--text: found no files, expected at least one" 2
elif [[ $# -gt 0 ]]; then
  fail "found '$1', expected nothing or --text FILE..." 2
fi
for i in "${!files[@]}"; do
  [[ -f ${files[i]} && -r ${files[i]} ]] || fail "--text: ${files[i]}: not a readable file"
  files[i]=$(realpath "${files[i]}")
done
cd "$(dirname "$0")/.."

# Writes the Bible to text/train/* and text/valid/*. Its lines are "Ge1:1 In the beginning ...". A chapter becomes a document, a
# verse becomes a line without its reference, and every 20th chapter is held out.
text=shards/text
bible_documents() {
  command -v bible >/dev/null || fail "no program 'bible' (Debian's package bible-kjv) here; give your own text with --text FILE..."
  rm -rf "$text"
  mkdir -p "$text/train" "$text/valid"
  bible -f gen1:1-rev22:21 </dev/null | LC_ALL=C awk -v text="$text" '
    { split($1, reference, ":")
      if (reference[1] != chapter) {
        if (file) close(file)
        chapter = reference[1]
        chapters++
        file = sprintf("%s/%s/%04d-%s.txt", text, chapters % 20 == 0 ? "valid" : "train", chapters, chapter)
      }
      print substr($0, index($0, " ") + 1) > file
    }'
}

phase "packages"
if [[ ${#files[@]} -gt 0 ]]; then
  scripts/install_packages.sh build
else
  scripts/install_packages.sh build text
fi

phase "build"
options=(-DROUTESCOPE_TESTS=OFF)
if [[ ! -e build/CMakeCache.txt ]] && ! compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
  echo "no CUDA device here: the CUDA backend is left out (cmake -B build -DROUTESCOPE_CUDA=AUTO builds it)"
  options+=(-DROUTESCOPE_CUDA=OFF)
fi
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release "${options[@]}"
cmake --build build

phase "text"
new=shards/new
mkdir -p "$new"
if [[ ${#files[@]} -gt 0 ]]; then
  build/bin/routescope-data tokenize --input "${files[@]}" --output "$new/train.bin" \
    --valid-output "$new/valid.bin" --valid-fraction 0.05
else
  bible_documents
  for part in train valid; do
    build/bin/routescope-data tokenize --input "$text/$part"/* --output "$new/$part.bin"
  done
fi
# A run that is there needs its shards: they are replaced by equal ones only.
for part in train valid; do
  [[ ! -e runs/quickstart || ! -e shards/$part.bin ]] || cmp -s "$new/$part.bin" "shards/$part.bin" ||
    fail "runs/quickstart: found a run on other text than this, expected none (move it and shards/*.bin away, or remove both)"
done
mv "$new/train.bin" "$new/valid.bin" shards/
# A short text has fewer than the configuration's 32 probe sequences of 256 tokens. A shard is 1024 bytes and 2 bytes a token.
windows=$(((($(stat -c %s shards/valid.bin) - 1024) / 2 - 1) / 256))
[[ $windows -ge 1 ]] || fail "the text is too short: its last 5 % hold less than 257 bytes, expected at least 6 kB of text"
short=()
[[ $windows -ge 32 ]] || short=("routing.sequences=$windows")

phase "train"
build/bin/routescope-train configs/quickstart.yaml "${short[@]}"

phase "probe every checkpoint"
build/bin/routescope-analyze track --run runs/quickstart

phase "report"
build/bin/routescope-analyze report --run runs/quickstart
phase_end

cat <<'END'

runs/quickstart/
  report.html              open it in a browser
  routing.h5               routing and training, step by step
  analysis.h5              what every route does, at every checkpoint
  checkpoints/step-*/      model directories
Next: README.md, "Look at the results" and "Your own text and models".
END
printf 'in all %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
