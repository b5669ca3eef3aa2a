#!/usr/bin/env bash
# Starts a real Slurm cluster on this machine, runs a command, and stops the cluster: slurmctld, munged and three slurmd, each
# a node with two processors, on the loopback addresses. It reads and writes nothing outside a scratch directory (no
# /etc/slurm, no service) and leaves no process behind. It needs root, but no systemd, no cgroups and no host name that
# resolves.
#
#   tests/slurm/cluster.sh COMMAND [ARGUMENT...]
#
# The environment of the command has SLURM_CONF, and ROUTESCOPE_CLUSTER, the scratch directory. There are two partitions, low
# (the default) and high. Jobs in high preempt jobs in low, which get the signal of their --signal and are requeued after 20 s.
# Exit status: the command's; 77 if Slurm cannot run here; 1 if it does not start.
set -euo pipefail

readonly nodes=3 skipped=77

fail() {
  printf 'cluster.sh: error: %s\n' "$1" >&2
  exit "${2:-1}"
}

[[ $# -gt 0 ]] || fail "no command: cluster.sh COMMAND [ARGUMENT...]" 2
if [[ $EUID -ne 0 ]]; then
  echo "cluster.sh: skipped: found user $(id -un), expected root: slurmd starts jobs as their users"
  exit $skipped
fi
# On Debian the daemons are in /usr/sbin.
PATH=$PATH:/usr/sbin:/sbin
for program in munged slurmctld slurmd srun sbatch scontrol setpriv; do
  if ! command -v $program >/dev/null; then
    echo "cluster.sh: skipped: $program not found: scripts/install_packages.sh test"
    exit $skipped
  fi
done
if ! mountpoint -q /sys/fs/cgroup && [[ -z $(ls -A /sys/fs/cgroup 2>/dev/null) ]]; then
  echo "cluster.sh: skipped: found nothing in /sys/fs/cgroup, expected control groups: slurmd does not start without"
  exit $skipped
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/routescope-slurm-XXXXXX")
chmod 755 "$dir"
# Every process of the cluster and of its jobs inherits this variable: members() finds them by it.
export ROUTESCOPE_CLUSTER=$dir SLURM_CONF=$dir/slurm.conf

# Prints the ids of all processes of the cluster. This script is not one of them: it started before it set the variable.
members() {
  local file pid
  { grep -lzxF "ROUTESCOPE_CLUSTER=$dir" /proc/[0-9]*/environ 2>/dev/null || true; } | while read -r file; do
    pid=${file#/proc/}
    echo "${pid%/environ}"
  done
}

# Ends every process of the cluster, with three seconds between SIGTERM and SIGKILL, and removes the scratch directory.
sweep() {
  local signal pid tries left
  for signal in TERM KILL; do
    mapfile -t left < <(members)
    for pid in "${left[@]}"; do
      kill -"$signal" "$pid" 2>/dev/null
    done
    for ((tries = 0; tries < 15; ++tries)); do
      mapfile -t left < <(members)
      [[ ${#left[@]} -gt 0 ]] || break 2
      sleep 0.2
    done
  done
  [[ ${#left[@]} -eq 0 ]] || echo "cluster.sh: warning: processes ${left[*]} are left" >&2
  rm -rf "$dir"
}

stop() {
  local status=$?
  trap - EXIT
  # From here on no failure may end the script, not even a closed output: the rest must still be done.
  trap '' INT TERM HUP PIPE
  set +e
  if [[ $status -ne 0 && $status -ne $skipped ]]; then
    # A daemon reports errors in its configuration on standard error, before it opens its log.
    for log in "$dir"/log/* "$dir"/start/*; do
      [[ ! -s $log || ($log == */start/* && -e $dir/log/${log##*/}) ]] || { echo "---- ${log##*/}" && tail -n 15 "$log"; }
    done >&2
  fi
  sweep
  kill "$heir" 2>/dev/null
  exit $status
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# If this script is killed, jobs would go on without their daemons. This process is not a child of the script and cleans up then.
heir=$(
  {
    set +e
    while kill -0 $$; do
      env -u ROUTESCOPE_CLUSTER sleep 1
    done
    sweep
  } </dev/null >/dev/null 2>&1 &
  echo $!
)

# Sets `port` to one below the kernel's range for clients on which no process listens.
taken=$(awk 'FNR > 1 && $4 == "0A" { split($2, at, ":"); print at[length(at)] }' /proc/net/tcp /proc/net/tcp6 2>/dev/null || true)
free_port() {
  local candidate
  while true; do
    candidate=$((20000 + RANDOM % 12000))
    if ! grep -qx "$(printf '%04X' $candidate)" <<<"$taken"; then
      taken+=$'\n'$(printf '%04X' $candidate)
      port=$candidate
      return
    fi
  done
}

mkdir -p "$dir"/{munge,state,log,start,run}
chmod 700 "$dir/munge/"
dd if=/dev/urandom of="$dir/munge/key" bs=128 count=1 status=none
chmod 600 "$dir/munge/key"
mkdir -m 755 "$dir/socket"

host=$(hostname)
host=${host%%.*}
free_port
cat >"$SLURM_CONF" <<END
ClusterName=routescope
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits until the credential of its last start has expired: two minutes unless said otherwise.
AuthInfo=socket=$dir/socket/munge,cred_expire=5
StateSaveLocation=$dir/state
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmctldLogFile=$dir/log/slurmctld
SlurmdPidFile=$dir/run/slurmd-%n.pid
SlurmdLogFile=$dir/log/slurmd-%n
SlurmdSpoolDir=$dir/spool-%n
# PMIx stores files for the tasks of a node under a name that does not depend on the node.
TmpFS=$dir/tmp-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=2
MinJobAge=300
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
# Nodes have two processors, whatever this machine has.
SlurmdParameters=config_overrides
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=20 MaxTime=10 State=UP
PartitionName=high Nodes=ALL PriorityTier=2 PreemptMode=OFF MaxTime=10 State=UP
END
for ((node = 1; node <= nodes; ++node)); do
  free_port
  echo "NodeName=node$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$port CPUs=2 State=UNKNOWN" >>"$SLURM_CONF"
  mkdir "$dir/spool-node$node" "$dir/tmp-node$node"
done

# The daemons are children in the foreground and end when this script is killed.
daemons=()
daemon() {
  local name=$1
  shift
  setpriv --pdeathsig TERM "$@" >"$dir/start/$name" 2>&1 </dev/null &
  daemons+=("$!")
  disown
}

daemon munged munged --foreground --force --socket="$dir/socket/munge" --key-file="$dir/munge/key" \
  --pid-file="$dir/munge/pid" --seed-file="$dir/munge/seed" --log-file="$dir/log/munged"
for ((tries = 0; tries < 100; ++tries)); do
  [[ ! -S $dir/socket/munge ]] || break
  sleep 0.05
done
[[ -S $dir/socket/munge ]] || fail "munged did not open its socket within 5 s"
daemon slurmctld slurmctld -D -i
for ((node = 1; node <= nodes; ++node)); do
  daemon slurmd-node$node slurmd -D -N node$node
done
for ((tries = 0; tries < 150; ++tries)); do
  idle=$(sinfo --noheader --format=%D --states=idle --partition=low 2>/dev/null || true)
  [[ $idle != "$nodes" ]] || break
  for pid in "${daemons[@]}"; do
    kill -0 "$pid" 2>/dev/null || fail "a daemon ended before the cluster was up"
  done
  sleep 0.2
done
[[ $idle == "$nodes" ]] || fail "found ${idle:-no} idle nodes after 30 s, expected $nodes"

# Open MPI names the shared memory of a node's tasks by machine and job, so that nodes of one machine would share it. Switch
# shared memory off and use loopback, which Open MPI does not use by default.
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo

"$@"
