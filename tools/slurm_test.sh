#!/usr/bin/env bash
# Tests under Slurm: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#     tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]
# GPUS=0 TASKS=2 tests on CPUs. slurm_run.sh describes all variables.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
partition=$1 job=$2 config=$3 checkpoint=$4
shift 4
exec "$(dirname "$0")/slurm_run.sh" "$partition" "$job" test.py "$config" "$checkpoint" "$@"
