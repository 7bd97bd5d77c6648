#!/usr/bin/env bash
# Train with several processes, one a GPU (or a CPU process with gloo where there is no GPU).
#
#   tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
#
# One machine: a free port is taken, unless PORT gives one. Several machines: run the same command on each, with NNODES,
# NODE_RANK, MASTER_ADDR and PORT (29500 by default) in the environment.
source "$(dirname "$0")/launchers.sh"
[ $# -ge 2 ] || usage 'CONFIG GPUS [arguments of tools/train.py]'
with_processes "$2" train.py "$1" "${@:3}"
