#!/usr/bin/env bash
# Says what clang-format would change (with .clang-format, version 14: others lay out differently) and what shellcheck objects
# to, and fails if there is any. A checker that is not installed is named and left out.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
if command -v clang-format-14 >/dev/null; then
  find analysis data kernels model tests train -regex '.*\.\(cpp\|h\|cu\|cuh\)' -print0 | xargs -0 clang-format-14 --dry-run -Werror || status=1
else
  echo "check_style.sh: no clang-format-14 here; C++ was not checked"
fi
if command -v shellcheck >/dev/null; then
  shellcheck -x scripts/*.sh scripts/slurm/train.sbatch scripts/container/build.sh tests/slurm/cluster.sh .ci/run || status=1
else
  echo "check_style.sh: no shellcheck here; scripts were not checked"
fi
exit "$status"
