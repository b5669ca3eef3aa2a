#!/usr/bin/env bash
# The commands of an image's two stages, which the Dockerfile and the Apptainer definition share.
#
#   build.sh programs SOURCE OUT   in the build stage, as root: installs packages, builds, and writes OUT/bin/ and OUT/packages, the
#                                  packages that bin/ needs at run time
#   build.sh runtime OUT           in the small image, as root: installs these packages, and the programs in /usr/local/bin
#
# In the environment of `programs`: CUDA (ON, OFF or AUTO), CUDA_ARCHITECTURES, CXXFLAGS.
set -euo pipefail

install_packages() {
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

case ${1:-} in
  programs)
    source=$2 out=$3
    "$source/scripts/install_packages.sh" build
    install_packages libopenmpi-dev
    # An image runs on other processors than this one: no native instructions but those in CXXFLAGS.
    cmake -S "$source" -B "$out/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DROUTESCOPE_TESTS=OFF -DROUTESCOPE_NATIVE=OFF \
      -DROUTESCOPE_MPI=ON -DROUTESCOPE_CUDA="${CUDA:-AUTO}" -DROUTESCOPE_CUDA_ARCHITECTURES="${CUDA_ARCHITECTURES:-80;90a-real}"
    cmake --build "$out/build"
    mkdir -p "$out/bin"
    install --strip "$out"/build/bin/routescope-* "$out/bin"
    # Find the packages of the shared libraries by file name: package names differ between distributions, and ldd and dpkg name
    # different directories (/lib and /usr/lib).
    ldd "$out"/bin/* | awk '/=>/ { print "*/" $1 }' | sort -u | while read -r library; do
      { dpkg-query --search "$library" 2>/dev/null || true; } | head -n 1 | cut -d: -f1
    done | sort -u >"$out/packages"
    rm -rf "$out/build"
    ;;
  runtime)
    out=$2
    mapfile -t packages <"$out/packages"
    # openmpi-bin has mpirun, for use without Slurm.
    install_packages "${packages[@]}" openmpi-bin
    rm -rf /var/lib/apt/lists/*
    cp "$out"/bin/* /usr/local/bin
    ;;
  *)
    echo "build.sh: error: found '${1:-}', expected programs SOURCE OUT or runtime OUT" >&2
    exit 2
    ;;
esac
