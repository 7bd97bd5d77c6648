# How the processes of a run are started; sourced by dist_*.sh and slurm_*.sh.
set -euo pipefail
TOOLS=$(dirname "$0")

# usage ARGUMENTS
usage() {
  echo "usage: $0 $1" >&2
  exit 2
}

# with_processes PROCESSES TOOL [arguments of the tool]
with_processes() {
  exec "${PYTHON:-python}" "$TOOLS/processes.py" "$1" "$TOOLS/$2" "${@:3}"
}

# with_srun PARTITION JOB_NAME TOOL [arguments of the tool]
with_srun() {
  local gpus=${GPUS:-8}
  local gpus_per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
  # srun hands it to all tasks; a run beside this one gets another
  export MASTER_PORT="${PORT:-${MASTER_PORT:-$((20000 + RANDOM % 20000))}}"
  # shellcheck disable=SC2086  # SRUN_ARGS holds several words
  exec srun -p "$1" \
    --job-name="$2" \
    --gres=gpu:"$gpus_per_node" \
    --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-8}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$TOOLS/$3" --launcher slurm "${@:4}"
}
