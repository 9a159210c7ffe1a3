#!/usr/bin/env bash
# Runs a command beside a SLURM of two nodes on this machine, which ends with the command.
#
#   bash tests/slurm.sh COMMAND [ARGUMENT ...]
#
# Needs root on Debian or Ubuntu; installs slurm-wlm and munge with apt-get where they are
# missing. All else (configuration, key, sockets, state, logs) is in a temporary folder, and the
# daemons listen on the address of this machine's own name, usually the loopback. The command
# finds the cluster by SLURM_CONF. Each node claims 4 CPUs, 64 GB and 2 GPUs, so that jobs written
# for real nodes are accepted; nothing enforces that, and there is no GPU behind the name.
#
# Exits with the command's status, or with 77 and one line that says why there is no SLURM here.
set -euo pipefail
(($# > 0)) || { echo "usage: bash tests/slurm.sh COMMAND [ARGUMENT ...]" >&2; exit 2; }

skip() { echo "slurm.sh: $*" >&2; exit 77; }

[[ $EUID == 0 ]] || skip "installing and starting SLURM takes root, and this is $(id -un)"
missing() {
  local name
  for name in munged slurmctld slurmd srun; do command -v "$name" >/dev/null || return 0; done
  return 1
}
PATH=$PATH:/usr/sbin:/sbin
if missing; then
  command -v apt-get >/dev/null || skip "SLURM is not installed, and there is no apt-get to install it"
  apt() {
    DEBIAN_FRONTEND=noninteractive timeout 150 \
      apt-get -qq -o DPkg::Lock::Timeout=60 -o Acquire::Retries=0 "$@" 2>&1 </dev/null
  }
  said=$(apt update && apt install --yes --no-install-recommends slurm-wlm munge) ||
    skip "slurm-wlm and munge cannot be installed: $(tail -n 1 <<<"$said")"
  if missing; then skip "slurm-wlm and munge are installed, but without all of their commands"; fi
fi

folder=$(mktemp -d "${TMPDIR:-/tmp}/slurm.XXXXXX") # mode 700: nobody else can reach the key
daemons=()
stop() {
  trap - EXIT INT TERM HUP
  local pid until=$((SECONDS + 20))
  # Jobs would outlive the daemons.
  if scancel --quiet --user=root 2>/dev/null; then
    while ((SECONDS < until)) && [[ -n "$(squeue --noheader 2>/dev/null)" ]]; do sleep 0.2; done
  fi
  for pid in "${daemons[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${daemons[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$folder"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() { # below the range that the kernel hands out by itself
  local port
  while port=$((10000 + RANDOM % 20000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

mkdir "$folder/state"
head -c 1024 /dev/urandom >"$folder/munge.key"
chmod 600 "$folder/munge.key"
host=${HOSTNAME%%.*}
cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host
SlurmUser=root
SlurmctldPort=$(free_port)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
# Without control groups, to which a container may have no right.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=5
GresTypes=gpu
# The tasks of a job find each other by the name of their first node.
NodeName=DEFAULT CPUs=4 RealMemory=65536 Gres=gpu:2
NodeName=$host NodeAddr=$host Port=$(free_port)
NodeName=$host-2 NodeAddr=$host Port=$(free_port)
PartitionName=test Nodes=$host,$host-2 Default=YES
# JAX takes the port of its coordinator from the job's number.
FirstJobId=$((1 + RANDOM % 4000))
CONF
printf 'Name=gpu File=%s\n' /dev/null /dev/zero >"$folder/gres.conf"
echo "IgnoreSystemd=yes" >"$folder/cgroup.conf"
export SLURM_CONF=$folder/slurm.conf

start() { # NAME COMMAND...: its messages go to NAME.out
  local name=$1
  shift
  "$@" >"$folder/$name.out" 2>&1 </dev/null &
  daemons+=($!)
}
wait_for() { # NAME TEST...: until the test succeeds
  local name=$1 until=$((SECONDS + 20))
  shift
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= until)) || ! kill -0 "${daemons[-1]}" 2>/dev/null; then
      skip "$name does not start here: $({
        tail -n 1 "$folder/$name.out"
        grep -i -E "fatal|munged: error" "$folder/$name.out"
      } | tail -n 1)"
    fi
    sleep 0.1
  done
}
idle() { [[ $(sinfo --noheader --nodes="$1" --format=%T) == idle ]]; }

start munged munged --foreground --force --num-threads=2 --socket="$folder/munge.socket" \
  --key-file="$folder/munge.key" --log-file="$folder/munged.log" \
  --pid-file="$folder/munged.pid" --seed-file="$folder/munged.seed"
wait_for munged munge --no-input --socket="$folder/munge.socket"
start slurmctld slurmctld -D
wait_for slurmctld scontrol ping
for node in "$host" "$host-2"; do
  start "slurmd.$node" slurmd -D -N "$node"
  wait_for "slurmd.$node" idle "$node"
done

"$@"
