#!/usr/bin/env bash
# Tests and measures the CUDA backend on this machine's GPU: builds, tests every kernel on the card, measures operations and whole
# training steps, trains on real text on the card and on the CPU, and measures PyTorch for comparison. It prints one table at the
# end and takes under ten minutes.
#
#   scripts/gpu_check.sh [--build DIR | --binaries PACK] [--text FILE] [--out DIR] [--stages LIST] [--seconds N] [--no-record]
#   scripts/gpu_check.sh --pack FILE.tar.gz [--build DIR]
#
#   --build DIR      the build directory (build-gpu); what is built there already is not built again
#   --cmake OPTION   an option for the build, such as -DCUDNN_FRONTEND_INCLUDE_DIR=DIR; may be repeated
#   --pack FILE      write the programs and their libraries into an archive and stop: for a machine with a card but without the
#                    packages. That machine must have a processor with AVX2 and CUDA's own libraries
#   --binaries PACK  build nothing: use such an archive, or a directory that it was unpacked into (bin/, lib/)
#   --text FILE      UTF-8 text to train on; else the package bible-kjv, else English text of Python and the system
#   --out DIR        where results go (runs/gpu_check)
#   --stages LIST    some of tests,bench,train,torch,graph (all)
#   --seconds N      time for everything after the build (560); a stage without time left is not started
#   --no-record      do not append the figures to kernels/cuda/README.md
#
# Each stage has a time limit. If one fails or runs out of time, the table says so, and the other stages still run. PYTHON names
# the Python to use (python3): with torch for the comparison, with h5py for the loss curves.
# Exit status: 0 all stages succeeded; 1 one did not; 2 wrong usage; 3 there is no GPU (found after the build).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=phases.sh
source "$(dirname "$0")/phases.sh"

build=build-gpu binaries="" pack="" text="" out=runs/gpu_check stages=tests,bench,train,torch,graph seconds=560 record=yes
cmake_options=()
while [[ $# -gt 0 ]]; do
  option=$1
  case $option in
    --no-record) record=no && shift && continue ;;
    --build | --cmake | --binaries | --pack | --text | --out | --stages | --seconds) ;;
    *) fail "found '$option', expected one of --build --cmake --binaries --pack --text --out --stages --seconds --no-record" 2 ;;
  esac
  [[ $# -gt 1 ]] || fail "$option: found nothing after it, expected a value" 2
  case $option in
    --stages)
      for stage in ${2//,/ }; do
        [[ ,tests,bench,train,torch,graph, == *,"$stage",* ]] || fail "--stages: found '$stage', expected some of tests,bench,train,torch,graph" 2
      done
      stages=$2
      ;;
    --seconds)
      [[ $2 =~ ^[0-9]+$ ]] || fail "--seconds: found '$2', expected a number" 2
      seconds=$2
      ;;
    --text)
      [[ -f $2 && -r $2 ]] || fail "--text: $2: not a readable file"
      text=$(realpath "$2")
      ;;
    --cmake) cmake_options+=("$2") ;;
    --build) build=$(realpath -m "$2") ;;
    --binaries) binaries=$(realpath -m "$2") ;;
    --pack) pack=$(realpath -m "$2") ;;
    --out) out=$(realpath -m "$2") ;;
  esac
  shift 2
done
[[ -z $binaries || -f $binaries || -d $binaries/bin ]] || fail "--binaries: $binaries: expected an archive, or a directory with bin/"
python=${PYTHON:-python3}
cd "$(dirname "$0")/.."
mkdir -p "$out"
out=$(realpath "$out")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$out/stages.log
: >"$log"
: >"$work/stages.tsv"
rm -f "$out"/{bench,graph,torch,torch_flash,loss}.json "$out"/{tests.log,report.txt,measured.md}
programs=(test_cuda routescope-bench routescope-train routescope-data)

# The card's architecture, the only one that is compiled; with its specific instructions where it has some (wgmma on 9.0).
architecture() {
  local capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d '. ') || true
  case $capability in
    90) echo 90a-real ;;
    [0-9]*) echo "$capability-real" ;;
    *) echo 90a-real ;;
  esac
}

build_programs() {
  local settings=(-DCMAKE_BUILD_TYPE=Release -DROUTESCOPE_CUDA=ON "-DROUTESCOPE_CUDA_ARCHITECTURES=$(architecture)")
  # The pack runs on another machine: no native instructions of this processor.
  if [[ -n $pack ]]; then settings+=(-DROUTESCOPE_NATIVE=OFF -DCMAKE_CXX_FLAGS=-march=x86-64-v3); fi
  if ! command -v nvcc >/dev/null && [[ -x /usr/local/cuda/bin/nvcc ]]; then
    export PATH=$PATH:/usr/local/cuda/bin
  fi
  cmake -S . -B "$build" -G Ninja "${settings[@]}" "${cmake_options[@]}" && cmake --build "$build" --target "${programs[@]}"
}

# Packs the programs, without debugging information, and the libraries that come from packages. The C and C++ libraries and
# CUDA's must be on the other machine.
pack_programs() {
  local root=$work/pack
  mkdir -p "$root/bin" "$root/lib"
  local program library
  for program in "${programs[@]}"; do
    strip -o "$root/bin/$program" "$build/bin/$program"
    ldd "$build/bin/$program" | awk '$3 ~ /^\// { print $3 }' |
      grep -Ev '/(libc|libm|libdl|librt|libresolv|libpthread|libstdc\+\+|libgcc_s|libcuda|libcudart|libcublas|libcublasLt|libcudnn[^/]*|libnvrtc)\.so' |
      while read -r library; do cp -Lu "$library" "$root/lib/"; done
  done
  tar -C "$root" -caf "$pack" bin lib
  du -h "$pack"
}

# The directories of CUDA's libraries: the toolkit's, then those of Python packages.
cuda_libraries() {
  local directories=(/usr/local/cuda/lib64) found
  found=$("$python" -c 'import glob, site
for root in site.getsitepackages() + [site.getusersitepackages()]:
    print("\n".join(glob.glob(root + "/nvidia/*/lib")))' 2>/dev/null) || true
  while read -r directory; do
    if [[ -n $directory ]]; then directories+=("$directory"); fi
  done <<<"$found"
  (IFS=: && echo "${directories[*]}")
}

asked() {
  [[ ,$stages, == *,"$1",* ]]
}

# stage NAME SECONDS: runs scripts/gpu_stages.sh NAME for at most SECONDS, and at most until the deadline. Its output goes to the
# log; if it fails, its last line goes into the table.
stage() {
  local name=$1 limit=$2 left=$((deadline - SECONDS)) status=0 begin=$SECONDS from note="" outcome
  if [[ $left -lt $limit ]]; then limit=$left; fi
  if [[ $limit -lt 15 ]]; then
    printf '%s\tnot started\t0\tno time left\n' "$name" >>"$work/stages.tsv"
    return 0
  fi
  phase "$name (at most $limit s)"
  from=$(wc -l <"$log")
  timeout --kill-after=10 "$limit" scripts/gpu_stages.sh "$name" >>"$log" 2>&1 || status=$?
  case $status in
    0) outcome="done" ;;
    124 | 137) outcome="out of time" ;;
    *) outcome=failed ;;
  esac
  if [[ $status -ne 0 ]]; then
    tail -n "+$((from + 1))" "$log" | tail -n 15
    note=$(tail -n "+$((from + 1))" "$log" | grep -v '^[[:space:]]*$' | tail -n 1 | tr '\t' ' ' | cut -c 1-160) || true
  fi
  printf '%s\t%s\t%d\t%s\n' "$name" "$outcome" $((SECONDS - begin)) "$note" >>"$work/stages.tsv"
  phase_end
}

# ---- the run ----------------------------------------------------------------------------------------------------------

if [[ -z $binaries ]]; then
  phase "build for $(architecture)"
  build_programs
  phase_end
  if [[ -n $pack ]]; then
    phase "pack"
    pack_programs
    phase_end
    exit 0
  fi
  bin=$build/bin
else
  if [[ -f $binaries ]]; then
    mkdir "$work/unpacked"
    tar -C "$work/unpacked" -xf "$binaries"
    binaries=$work/unpacked
  fi
  bin=$binaries/bin
fi
for program in "${programs[@]}"; do
  [[ -x $bin/$program ]] || fail "$bin/$program: no such program"
done
library_path=$(cuda_libraries)
if [[ -n $binaries ]]; then library_path=$binaries/lib:$library_path; fi
library_path+=${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

export bin out work python library_path text

status=0
scripts/gpu_stages.sh card >"$work/card" 2>&1 || status=$?
cat "$work/card" >>"$log"
if [[ $status -eq 3 ]]; then
  echo "no GPU: $(tail -n 1 "$work/card")"
  exit 3
fi
[[ $status -eq 0 ]] || fail "a copy on the card failed: $(tail -n 1 "$work/card")"

deadline=$((SECONDS + seconds))
if asked tests; then stage tests 150; fi
if asked bench; then stage bench 180; fi
if asked train; then stage train 120; fi
if asked torch; then
  if "$python" -c 'import torch' 2>/dev/null; then
    stage torch 180
  else
    printf 'torch\tleft out\t0\t%s has no PyTorch\n' "$python" >>"$work/stages.tsv"
  fi
fi
if asked graph; then stage graph 100; fi

report=("$python" scripts/gpu_report.py table --work "$work" --out "$out")
if [[ $record == yes ]]; then report+=(--record kernels/cuda/README.md); fi
status=0
"${report[@]}" >"$out/report.txt" || status=$?
printf '\n'
cat "$out/report.txt"
exit "$status"
