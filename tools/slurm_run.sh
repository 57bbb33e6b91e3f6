#!/usr/bin/env bash
# What slurm_train.sh and slurm_test.sh have in common: tools/slurm_run.sh PARTITION JOB_NAME PROGRAM ARGUMENTS...
# GPUS=8            GPUs, with a process each; 0 for a partition without GPUs
# TASKS=2           processes where GPUS=0
# GPUS_PER_NODE=8   GPUs (or processes) of a node
# CPUS_PER_TASK=5   cores of a process
# SRUN_ARGS='...'   more options of srun (with BATCH of sbatch)
# BATCH=1           submits a job that is queued again, and goes on, when it is pre-empted, its node fails, or its time
#                   is nearly over: GRACE=120 seconds before the end
set -euo pipefail
partition=$1 job=$2 program=$3
shift 3
gpus=${GPUS:-8}
if [ "$gpus" -gt 0 ]; then tasks=$gpus; else tasks=${TASKS:-1}; fi
per_node=${GPUS_PER_NODE:-8}
[ "$tasks" -lt "$per_node" ] && per_node=$tasks
options=(--partition="$partition" --job-name="$job" --ntasks="$tasks" --ntasks-per-node="$per_node"
    --cpus-per-task="${CPUS_PER_TASK:-5}")
[ "$gpus" -gt 0 ] && options+=(--gres=gpu:"$per_node")
# Two jobs that share a node must not meet at the same port.
export MASTER_PORT=${MASTER_PORT:-$((20000 + RANDOM % 20000))}
step=(--kill-on-bad-exit=1 --cpus-per-task="${CPUS_PER_TASK:-5}" python -u "$(realpath "$(dirname "$0")")/$program" "$@"
    --launcher slurm)
if [ -z "${BATCH:-}" ]; then
    # shellcheck disable=SC2086  # SRUN_ARGS is several words
    exec srun "${options[@]}" ${SRUN_ARGS:-} "${step[@]}"
fi
# The job's script is one of sh, which does not read all of what bash's printf %q writes.
quoted() { local quote="'" escaped="'\\''" word; for word; do printf "'%s' " "${word//$quote/$escaped}"; done; }
# srun passes the signal on to the programs, which save and end.
# shellcheck disable=SC2086,SC2016
exec sbatch "${options[@]}" --requeue --open-mode=append --signal="B:USR1@${GRACE:-120}" ${SRUN_ARGS:-} \
    --wrap "srun $(quoted "${step[@]}")&"'
step=$! asked=
trap "asked=yes; kill -USR1 $step" USR1
while wait $step; status=$?; kill -0 $step 2>/dev/null; do :; done  # a signal ends wait, but not the step
[ -z "$asked" ] || [ $status = 0 ] || scontrol requeue "$SLURM_JOB_ID"
exit $status'
