#!/usr/bin/env bash
# Trains on a Cloud TPU VM that exists already: copies this checkout there (the files that git
# tracks, as they are now), installs it with the tpu extra and runs the same main.
#
# Nothing is created or deleted in the cloud; the VM, and its bill, stay yours. Data sets are not
# copied: give a folder on the VM, or use a config that generates its images. The project and the
# account are those of 'gcloud config'. The VM needs Python 3.11 to 3.13 with venv; on an
# Ubuntu 22.04 image: sudo apt-get install -y python3.11-venv
#
# On a slice of several hosts (a v5litepod-16, say) all of them install and run the same, and find
# each other. Each reads the data from its own disk, unless that is a shared mount; the first
# process alone, on worker 0, writes to the workdir.
# Not yet run on a real TPU: tests/launch/test_launch.py runs it with a stand-in for gcloud.
set -euo pipefail

usage() {
  cat >&2 <<'USAGE'
usage: bash launch/tpu_vm.sh NAME ZONE --config=configs/FILE.py [main's arguments ...]

  NAME  an existing TPU VM ('gcloud compute tpus tpu-vm list --zone=ZONE')
  ZONE  its zone, such as europe-west4-b

Paths are relative to ~/cellcount_jax on the VM. The same command resumes a run. Results, on
worker 0 where there are several hosts, unless --workdir is on a shared mount:
  gcloud compute tpus tpu-vm scp --recurse NAME:cellcount_jax/runs . --zone=ZONE
USAGE
}
die() { echo "tpu_vm.sh: $*" >&2; exit 2; }

case "${1:-}" in -h | --help) usage; exit 0 ;; esac
if (($# < 3)); then usage; exit 2; fi
name=$1 zone=$2
shift 2
[[ "$name" =~ ^[a-z][a-z0-9-]*$ ]] || die "NAME is '$name'; a TPU VM's name is lower-case letters, digits and hyphens"
[[ "$zone" =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || die "ZONE is '$zone'; a zone looks like europe-west4-b"
[[ " $* " == *" --config"[=\ ]* ]] || die "no --config among the arguments of main: $*"
command -v gcloud >/dev/null || die "gcloud is not installed; see https://cloud.google.com/sdk/docs/install"

tpu() { gcloud compute tpus tpu-vm "$@" --zone="$zone" </dev/null; }

hosts=$(tpu describe "$name" --format='value(networkEndpoints.len())')
[[ "$hosts" =~ ^[1-9][0-9]*$ ]] || die "$name has ${hosts:-no} hosts; is it ready? See 'gcloud compute tpus tpu-vm describe $name --zone=$zone'"
together=()
if ((hosts > 1)); then
  [[ " $* " != *" --coordinator"* ]] || die "--coordinator is for this script to give: the $hosts hosts of $name find each other"
  together=(--coordinator=auto)
  echo "tpu_vm.sh: $hosts hosts; worker 0 writes the results to its own disk, unless --workdir is on a shared mount" >&2
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git ls-files -z | tar --null --files-from=- -czf "$archive"
tpu scp "$archive" "$name:cellcount_jax.tar.gz" --worker=all

printf -v arguments ' %q' "$@" ${together[@]+"${together[@]}"}
tpu ssh "$name" --worker=all --command="set -e
mkdir -p ~/cellcount_jax
cd ~/cellcount_jax
tar -xzf ~/cellcount_jax.tar.gz
EXTRAS=tpu bash launch/setup_venv.sh
exec .venv/bin/python -m cellcount_jax.main$arguments"
