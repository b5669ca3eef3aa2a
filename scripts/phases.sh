# shellcheck shell=bash
# Sourced by the other scripts: names each phase as it starts and says how long it took.

phase_name=""
phase_start=$SECONDS

phase() {
  phase_end
  phase_name=$1
  phase_start=$SECONDS
  printf '\n== %s\n' "$phase_name"
}

phase_end() {
  if [[ -n $phase_name ]]; then
    printf '== %s: %d s\n' "$phase_name" $((SECONDS - phase_start))
  fi
  phase_name=""
}

# One line and a non-zero exit status, as the tools do.
fail() {
  printf '%s: error: %s\n' "${0##*/}" "$1" >&2
  exit "${2:-1}"
}
