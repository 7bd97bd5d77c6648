#!/usr/bin/env bash
# Test with several processes, one a GPU (or a CPU process with gloo where there is no GPU).
#
#   tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
#
# One machine: a free port is taken, unless PORT gives one. Several machines: run the same command on each, with NNODES,
# NODE_RANK, MASTER_ADDR and PORT (29500 by default) in the environment.
source "$(dirname "$0")/launchers.sh"
[ $# -ge 3 ] || usage 'CONFIG CHECKPOINT GPUS [arguments of tools/test.py]'
with_processes "$3" test.py "$1" "$2" "${@:4}"
