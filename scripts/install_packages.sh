#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that are needed to build, to test, for the text of the quickstart or of the study, or
# for figures. Does nothing where all of them are installed. ROUTESCOPE_INSTALL=no in the environment skips it.
#
#   scripts/install_packages.sh [build] [test] [text] [study] [figures]     default: build test
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=phases.sh
source "$(dirname "$0")/phases.sh"

build=(g++ cmake ninja-build git ca-certificates libdnnl-dev libhdf5-dev libyaml-cpp-dev libcli11-dev libfmt-dev
  libspdlog-dev nlohmann-json3-dev libssl-dev zlib1g-dev libarchive-dev libboost-math-dev)
test=(python3 python3-h5py libgtest-dev libboost-context-dev libopenmpi-dev openmpi-bin clang-format-14 shellcheck)
# The page is tested in a browser. Ubuntu has no package of one, only a script that installs a snap; tests skip it there.
if ! grep -qs '^ID=ubuntu' /etc/os-release; then
  test+=(chromium)
fi
# tests/slurm starts its own Slurm, which only root can do. The services of these packages should not run.
if [[ $EUID -eq 0 ]]; then
  test+=(slurmctld slurmd slurm-client munge)
fi
text=(bible-kjv)
study=(linux-doc python3-doc perl-doc python3-venv)
figures=(python3-h5py python3-matplotlib)

if [[ $# -eq 0 ]]; then
  set -- build test
fi
wanted=()
for group in "$@"; do
  case $group in
    build) wanted+=("${build[@]}") ;;
    test) wanted+=("${test[@]}") ;;
    text) wanted+=("${text[@]}") ;;
    study) wanted+=("${study[@]}") ;;
    figures) wanted+=("${figures[@]}") ;;
    *) fail "unknown group '$group', expected build, test, text, study or figures" 2 ;;
  esac
done

if [[ ${ROUTESCOPE_INSTALL:-yes} == no ]]; then
  echo "install_packages.sh: ROUTESCOPE_INSTALL=no: not looking at packages"
  exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  cat >&2 <<'END'
install_packages.sh: error: no apt-get here. Install by your system's means
  to build: a C++20 compiler with OpenMP (g++ 12 or newer), CMake 3.25 or newer, Ninja, git, and with headers
            oneDNN 2.6, HDF5 1.10 or newer (C), yaml-cpp, CLI11, fmt 9, spdlog, nlohmann-json, OpenSSL, zlib, libarchive, Boost.Math
  to train with several processes: an MPI (Open MPI), and on CUDA devices NCCL
  to test:  Python 3 (with h5py, or one test is skipped), GoogleTest, Boost.Context, Open MPI (clang-format 14 and shellcheck, which check the style; chromium for the page; as root Slurm and munge)
  for the quickstart's text: nothing, if you give your own with --text FILE...
  for the study's text: Debian's linux-doc, python3-doc and perl-doc
  for figures: the Python packages h5py and matplotlib
then run again with ROUTESCOPE_INSTALL=no in the environment.
END
  exit 1
fi

missing=()
for package in "${wanted[@]}"; do
  if [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) != installed ]]; then
    missing+=("$package")
  fi
done
if [[ ${#missing[@]} -eq 0 ]]; then
  echo "install_packages.sh: nothing to install ($*: ${#wanted[@]} packages)"
  exit 0
fi

as_root=()
if [[ $EUID -ne 0 ]]; then
  command -v sudo >/dev/null || fail "not root and no sudo; as root: apt-get install ${missing[*]}"
  as_root=(sudo)
fi
echo "install_packages.sh: installing with apt-get: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  -o Dpkg::Use-Pty=0 "${missing[@]}" >/dev/null
