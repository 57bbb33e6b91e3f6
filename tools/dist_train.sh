#!/usr/bin/env bash
# Trains on all GPUs of one machine, or of several: tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Several machines: set NNODES, NODE_RANK and MASTER_ADDR on each; WAIT=600 is how long they wait for each other at the
# start, in seconds. Without a GPU, GPUS processes run on the CPU.
# MAX_RESTARTS=3 starts all processes again, up to three times, when one fails; they go on from the last checkpoint.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5s/^# //p' "$0"; exit 2; }
config=$1 gpus=$2
shift 2
exec python "$(dirname "$0")/dist_run.py" --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" --nproc-per-node "$gpus" \
    --rdzv-conf "timeout=${WAIT:-600}" --max-restarts "${MAX_RESTARTS:-0}" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
