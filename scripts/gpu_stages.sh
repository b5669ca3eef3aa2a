#!/usr/bin/env bash
# One stage of scripts/gpu_check.sh: card, tests, bench, graph, train or torch. gpu_check.sh sets bin, out, work, python,
# library_path and text. A failure ends the stage, and the last line of its output says why.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=phases.sh
source "$(dirname "$0")/phases.sh"
: "${bin:?}" "${out:?}" "${work:?}" "${python:?}" "${library_path?}" "${text?}"
cd "$(dirname "$0")/.."

# Runs a program of routescope.
tool() {
  local program=$1
  shift
  env LD_LIBRARY_PATH="$library_path" "$bin/$program" "$@"
}

# Copies on the device; exit status 3 if there is none.
run_card() {
  tool routescope-bench --device cuda --parts copy
}

# Every test on the card. Several processes share them, because most of the time goes into the reference on the processor.
run_tests() {
  local shards=$(($(nproc) / 2)) i status=0 pids=()
  if [[ $shards -lt 1 ]]; then shards=1; fi
  if [[ $shards -gt 8 ]]; then shards=8; fi
  for ((i = 0; i < shards; ++i)); do
    GTEST_TOTAL_SHARDS=$shards GTEST_SHARD_INDEX=$i OMP_NUM_THREADS=2 tool test_cuda --gtest_brief=1 >"$work/tests.$i" 2>&1 &
    pids+=($!)
  done
  for i in "${!pids[@]}"; do wait "${pids[i]}" || status=1; done
  cat "$work"/tests.* >"$out/tests.log"
  grep -E '^\[  FAILED  \] ' "$out/tests.log" | grep -vE '\] [0-9]+ tests?' | sed 's/ ([0-9]* ms)$//' | sort -u | head -n 40 || true
  awk -v status="$status" '/^\[  PASSED  \]/ { passed += $4 } /^\[  FAILED  \] [0-9]+ test/ { failed += $4 }
    END { printf "%d passed, %d failed%s\n", passed, failed, status != 0 && failed == 0 ? ", a process ended before its end" : ""
      exit status != 0 || failed > 0 || passed == 0 }' "$out/tests.log" >"$work/tests.txt" || status=1
  cat "$work/tests.txt"
  return "$status"
}

run_bench() {
  tool routescope-bench --device cuda --json "$out/bench.json"
}

# Training steps again, at full speed: passes replayed as a graph, products by the fastest of several candidates.
run_graph() {
  tool routescope-bench --device cuda --parts products,steps --reads auto --graph --tune-products --json "$out/graph.json"
}

# Writes English text of at least 200 KB to the file text.
find_text() {
  if [[ -n $text ]]; then
    cp "$text" "$work/text"
  elif command -v bible >/dev/null; then
    bible -f gen1:1-rev22:21 </dev/null | cut -d ' ' -f 2- >"$work/text"
  else
    "$python" -c 'import pydoc_data.topics as t; print("\n\n".join(t.topics.values()))' >"$work/text" 2>/dev/null || true
    find /usr/share/common-licenses /usr/share/perl /usr/share/doc -type f \( -name '*.pod' -o -name '*.txt' -o -path '*/common-licenses/*' \) \
      -size +8k -print0 2>/dev/null | sort -z | head -z -n 200 | xargs -0 cat 2>/dev/null | iconv -c -f utf-8 -t utf-8 >>"$work/text" || true
  fi
  [[ $(wc -c <"$work/text") -ge 200000 ]] || fail "found $(wc -c <"$work/text") bytes of text, expected at least 200000: give --text FILE"
}

# The same 200 steps, with the same seed and data, on the CPU, on the card in f32 and on the card in bf16. The model is that of the
# quickstart with heads of 64, for which attention uses tensor cores.
run_train() {
  find_text
  tool routescope-data tokenize --input "$work/text" --output "$work/train.bin" --valid-output "$work/valid.bin" --valid-fraction 0.05
  local common=("data.train=[$work/train.bin]" "data.valid=[$work/valid.bin]" valid.every=0 valid.tokens=16384
    checkpoint.every=0 checkpoint.log_spaced_until=0 routing.every=100 routing.log_spaced_until=0 routing.per_token_every=0
    train.steps=200 train.tokens_per_step=2048 train.micro_batch=8 model.num_attention_heads=4
    model.num_key_value_heads=2 model.head_dim=64)
  local cpu threads=$(($(nproc) - 2))  # two cores are left to the runs on the card
  if [[ $threads -lt 1 ]]; then threads=1; fi
  OMP_NUM_THREADS=$threads tool routescope-train configs/quickstart.yaml "${common[@]}" run.dir="$work/cpu_f32" device=cpu precision=f32 >"$work/cpu.log" 2>&1 &
  cpu=$!
  tool routescope-train configs/quickstart.yaml "${common[@]}" run.dir="$work/cuda_f32" device=cuda precision=f32
  tool routescope-train configs/quickstart.yaml "${common[@]}" run.dir="$work/cuda_bf16" device=cuda precision=bf16
  wait "$cpu" || {
    cat "$work/cpu.log"
    return 1
  }
  "$python" scripts/gpu_report.py losses --runs "$work" --json "$out/loss.json"
}

run_torch() {
  "$python" -c 'import torch; assert torch.cuda.is_available(), "no CUDA device for PyTorch"'
  "$python" scripts/bench_torch.py --json "$out/torch.json"
  if "$python" -c 'import flash_attn_res' 2>/dev/null; then
    "$python" scripts/bench_torch.py --residual block_attn_res --reads flash_attn_res --json "$out/torch_flash.json"
  fi
}

case ${1:-} in
  card | tests | bench | graph | train | torch) "run_$1" ;;
  *) fail "found '${1:-}', expected card, tests, bench, graph, train or torch" 2 ;;
esac
