#!/usr/bin/env bash
# One run on the GPUs of several nodes: sbatch docs/pods/slurm.sh CONFIG WORKDIR [--config.key=value ...]
# A task per GPU: JAX gives each task of a SLURM step the GPU of its number on the node.
#SBATCH --job-name=vprompt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
config="$1" workdir="$2"
shift 2
# SLURM sends SIGTERM before it takes the nodes away: the run saves, and the requeued job goes on.
# WORKDIR has to be on a file system that all nodes share.
exec srun --kill-on-bad-exit=1 .venv/bin/python launch.py --config="$config" --workdir="$workdir" "$@"
