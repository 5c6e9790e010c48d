#!/usr/bin/env bash
# A sweep, a run per job: sbatch --array=0-14 docs/pods/slurm_sweep.sh CONFIG FOLDER
# Afterwards, python launch.py --config CONFIG --workdir FOLDER writes the tables and figures.
#SBATCH --job-name=vprompt-sweep
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --requeue
set -euo pipefail
exec .venv/bin/python launch.py --config="$1" --workdir="$2" --run="$SLURM_ARRAY_TASK_ID"
