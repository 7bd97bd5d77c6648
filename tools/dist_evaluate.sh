#!/usr/bin/env bash
# Evaluate with several processes, one a GPU (or a CPU process with gloo where there is no GPU).
#
#   tools/dist_evaluate.sh GPUS [arguments of tools/evaluate.py]
#
# One machine: a free port is taken, unless PORT gives one. Several machines: run the same command on each, with NNODES,
# NODE_RANK, MASTER_ADDR and PORT (29500 by default) in the environment.
source "$(dirname "$0")/launchers.sh"
[ $# -ge 1 ] || usage 'GPUS [arguments of tools/evaluate.py]'
with_processes "$1" evaluate.py "${@:2}"
