#!/usr/bin/env bash
# Trains on one node of a SLURM cluster, on all the GPUs that the job is given.
#
# Once, on a node with internet access, from the checkout:
#   EXTRAS=cuda bash launch/setup_venv.sh
# Then, from the checkout (options given to sbatch win over those below):
#   sbatch launch/slurm.sh --config=configs/vgg.py:paper --config.data.dir=DIR --workdir=runs/vgg
#
# Two minutes before the time limit the run gets SIGTERM: it writes a checkpoint and ends with
# status 0. The same command resumes it, so a long run is the same line submitted several times
# with --dependency=singleton (each waits for the one before). The batch must divide by the
# number of GPUs. One process on one node: several nodes are not supported yet.
# Not yet run on a real cluster.
#
#SBATCH --job-name=cellcount
#SBATCH --nodes=1
#SBATCH --ntasks=1
# Change: GPUs of the node (some clusters want a type, such as gpu:a100:1, or a partition).
#SBATCH --gres=gpu:1
# Change: CPU cores and memory; reading and scoring use a few cores, training the GPU.
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
source .venv/bin/activate

# srun does not take over --cpus-per-task from the job since SLURM 22.05.
exec srun --ntasks=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" python -m cellcount_jax.main "$@"
