#!/usr/bin/env bash
# Installs what run.py needs from Debian's packages, and runs it: make test-distributed. As root, on a machine whose
# Slurm, network namespaces h0 and h1, and munge nobody else uses.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo 'error: this sets up a cluster and networks: run it as root' >&2; exit 2; }
missing=()
for package in slurm-wlm munge iproute2; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y "${missing[@]}" >/dev/null
fi
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python} status=0
"$python" tests/distributed/run.py "$@" || status=$?
[ $# -gt 0 ] || "$python" tests/distributed/kills.py || status=$?
exit $status
