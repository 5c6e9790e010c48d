#!/usr/bin/env bash
# One run on all hosts of a TPU slice, from a machine with gcloud:
#   TPU=NAME ZONE=ZONE bash docs/pods/tpu_vm.sh CONFIG WORKDIR [--config.key=value ...]
# The repository and its .venv (installed with ".[tpu]") are in ~/vprompt on every host, WORKDIR is on
# a file system that all of them mount. The hosts find each other through the TPU's metadata.
set -euo pipefail
config="$1" workdir="$2"
shift 2
command="cd ~/vprompt && exec .venv/bin/python launch.py --config=$config --workdir=$workdir $(printf '%q ' "$@")"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$command"
