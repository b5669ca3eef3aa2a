#!/usr/bin/env bash
# Installs what is missing, builds everything in build/, runs every test and checks the style. Arguments go to ctest
# (e.g. -R model).
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=phases.sh
source scripts/phases.sh

phase "packages"
scripts/install_packages.sh build test figures
phase "configure"
cmake -S . -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DROUTESCOPE_TESTS=ON -DROUTESCOPE_CUDA=AUTO
phase "build"
cmake --build build
phase "tests"
# Two test programs at a time, each with its own OpenMP threads: waiting threads must sleep rather than spin.
OMP_WAIT_POLICY=passive ctest --test-dir build --output-on-failure -j2 "$@"
phase "style"
scripts/check_style.sh
phase_end
