#!/usr/bin/env bash
# Trains on one or several nodes of a SLURM cluster, on all the GPUs that the job is given.
#
# Once, on a node with internet access, from the checkout:
#   EXTRAS=cuda bash launch/setup_venv.sh
# Then, from the checkout (options given to sbatch win over those below):
#   sbatch launch/slurm.sh --config=configs/vgg.py:paper --config.data.dir=DIR --workdir=runs/vgg
#   sbatch --nodes=2 --gres=gpu:4 launch/slurm.sh --config=... (8 GPUs)
#
# Two minutes before the time limit the run gets SIGTERM: it writes a checkpoint and ends with
# status 0. The same command resumes it, on any number of nodes and GPUs, so a long run is the
# same line submitted several times with --dependency=singleton (each waits for the one before).
# The batch must divide by the number of GPUs of all nodes.
#
# There is one process on each node, for all of its GPUs; on several nodes these find each other
# by SLURM's variables. All nodes must see the checkout, its .venv and the data; the first
# process alone writes to the workdir.
# Tried on a SLURM 22.05 of Debian, two nodes on one machine, CPU only (tests/launch/test_slurm.py);
# not yet on a real cluster.
#
#SBATCH --job-name=cellcount
# Change: the number of nodes.
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
# Change: GPUs of each node (some clusters want a type, such as gpu:a100:1, or a partition).
#SBATCH --gres=gpu:1
# Change: CPU cores and memory of each node; reading and scoring use a few cores, training the GPU.
#SBATCH --cpus-per-task=4
#SBATCH --mem=32G
# Change: the time limit.
#SBATCH --time=04:00:00
# The log, in the folder of the sbatch command; a requeued job goes on in the same file.
#SBATCH --output=slurm-%x-%j.out
#SBATCH --open-mode=append
# SIGTERM to the run (not to this script) 120 s before the end; back in the queue on preemption.
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

# SLURM runs a copy of this script from elsewhere, so the checkout is the folder of the submission.
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch from the checkout: sbatch launch/slurm.sh --config=...}"
if [[ ! -f launch/slurm.sh || ! -f .venv/bin/activate ]]; then
  echo "slurm.sh: $PWD is not a checkout with a .venv; run EXTRAS=cuda bash launch/setup_venv.sh there and submit from there" >&2
  exit 1
fi
# shellcheck source=/dev/null
source .venv/bin/activate

# srun does not take over --cpus-per-task from the job since SLURM 22.05. A process that fails
# ends the others, which would wait for it.
exec srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=1 \
  python -m cellcount_jax.main "$@"
