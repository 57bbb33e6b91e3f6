#!/usr/bin/env bash
# Tests on all GPUs of one machine, or of several: tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# Several machines: set NNODES, NODE_RANK and MASTER_ADDR on each; WAIT=600 is how long they wait for each other at the
# start, in seconds. Without a GPU, GPUS processes run on the CPU.
set -euo pipefail
[ $# -ge 3 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
config=$1 checkpoint=$2 gpus=$3
shift 3
exec python "$(dirname "$0")/dist_run.py" --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" --nproc-per-node "$gpus" \
    --rdzv-conf "timeout=${WAIT:-600}" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
