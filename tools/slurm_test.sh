#!/usr/bin/env bash
# Test on a Slurm cluster.
#
#   GPUS=16 tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
#
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS come from the environment.
source "$(dirname "$0")/launchers.sh"
[ $# -ge 4 ] || usage 'PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]'
with_srun "$1" "$2" test.py "$3" "$4" "${@:5}"
