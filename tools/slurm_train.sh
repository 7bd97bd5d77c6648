#!/usr/bin/env bash
# Train on a Slurm cluster.
#
#   GPUS=16 tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
#
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS come from the environment. With --resume in the arguments, a
# job that is put back into the queue goes on from its latest checkpoint.
source "$(dirname "$0")/launchers.sh"
[ $# -ge 4 ] || usage 'PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]'
with_srun "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
