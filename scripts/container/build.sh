#!/usr/bin/env bash
# The commands of an image's two stages, which the Dockerfile and the Apptainer definition share.
#
#   build.sh programs SOURCE OUT   in the build stage, as root: packages, build, then in OUT bin/ and packages (what bin/ needs at run time)
#   build.sh runtime OUT           in the small image, as root: these packages, and the programs in /usr/local/bin
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
    # An image runs on processors other than the builder's: CXXFLAGS says which.
    cmake -S "$source" -B "$out/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DROUTESCOPE_TESTS=OFF -DROUTESCOPE_NATIVE=OFF \
      -DROUTESCOPE_MPI=ON -DROUTESCOPE_CUDA="${CUDA:-AUTO}" -DROUTESCOPE_CUDA_ARCHITECTURES="${CUDA_ARCHITECTURES:-80;90a-real}"
    cmake --build "$out/build"
    mkdir -p "$out/bin"
    install --strip "$out"/build/bin/routescope-* "$out/bin"
    # The packages that hold the shared libraries, asked for by file name: their names differ between distributions, and ldd and dpkg
    # between /lib and /usr/lib.
    ldd "$out"/bin/* | awk '/=>/ { print "*/" $1 }' | sort -u | while read -r library; do
      { dpkg-query --search "$library" 2>/dev/null || true; } | head -n 1 | cut -d: -f1
    done | sort -u >"$out/packages"
    rm -rf "$out/build"
    ;;
  runtime)
    out=$2
    mapfile -t packages <"$out/packages"
    # mpirun, for images that are run without a Slurm around them.
    install_packages "${packages[@]}" openmpi-bin
    rm -rf /var/lib/apt/lists/*
    cp "$out"/bin/* /usr/local/bin
    ;;
  *)
    echo "build.sh: error: found '${1:-}', expected programs SOURCE OUT or runtime OUT" >&2
    exit 2
    ;;
esac
