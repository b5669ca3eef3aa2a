#!/usr/bin/env bash
# Prints what clang-format 14 would change (.clang-format; other versions lay out differently) and what shellcheck objects
# to. Fails if there is anything. A checker that is not installed is named and left out.
#
#   scripts/check_style.sh          takes a second
#   scripts/check_style.sh --tidy   also runs clang-tidy 14 (.clang-tidy) over what is built in build/: most of an hour on 2 cores
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=phases.sh
source "$(dirname "$0")/phases.sh"
cd "$(dirname "$0")/.."

tidy=no
if [[ ${1:-} == --tidy ]]; then
  tidy=yes
elif [[ $# -gt 0 ]]; then
  fail "found '$1', expected nothing or --tidy" 2
fi

status=0
if command -v clang-format-14 >/dev/null; then
  find analysis data kernels model tests train -regex '.*\.\(cpp\|h\|cu\|cuh\|js\)' -print0 | xargs -0 clang-format-14 --dry-run -Werror || status=1
else
  echo "check_style.sh: no clang-format-14 here; C++ and JavaScript were not checked"
fi
if command -v shellcheck >/dev/null; then
  shellcheck -x scripts/*.sh scripts/slurm/train.sbatch scripts/container/build.sh tests/slurm/cluster.sh .ci/run || status=1
else
  echo "check_style.sh: no shellcheck here; scripts were not checked"
fi
if [[ $tidy == yes ]]; then
  command -v run-clang-tidy-14 >/dev/null || fail "--tidy: no run-clang-tidy-14 here (Debian's package clang-tidy-14)"
  [[ -f build/compile_commands.json ]] || fail "--tidy: found no build/compile_commands.json, expected one from a build in build/"
  run-clang-tidy-14 -quiet -p build "^$PWD/(analysis|data|kernels|model|tests|train)/" || status=1
fi
exit "$status"
