#!/usr/bin/env bash
# Trains under Slurm: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] [BATCH=1] \
#     tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]
# GPUS=0 TASKS=2 trains on CPUs. slurm_run.sh describes all variables.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
partition=$1 job=$2 config=$3 work_dir=$4
shift 4
exec "$(dirname "$0")/slurm_run.sh" "$partition" "$job" train.py "$config" --work-dir "$work_dir" "$@"
