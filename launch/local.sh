#!/usr/bin/env bash
# Trains on this machine in N processes, in the same way as on several hosts:
#   bash launch/local.sh 2 --config configs/quickstart.py --workdir runs/quickstart
# Each process uses one GPU if there are GPUs, else DEVICES (default 1) CPU devices. If a process
# fails, all end, and the script returns its exit code. On SIGTERM, SIGHUP and Ctrl-C, all processes
# save a checkpoint and exit with 75.
# --dry-run before N prints the commands and runs none.
set -euo pipefail
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" # for modules in the current folder
cd "$(dirname "$0")/.."

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=1
    shift
fi
if ! [[ "${1:-}" =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: bash launch/local.sh [--dry-run] N ARGUMENTS OF mae-jax train" >&2
    exit 2
fi
count=$1
shift
if [ -z "$dry_run" ] && ! command -v mae-jax >/dev/null; then
    echo "launch/local.sh: mae-jax is not on the PATH: source .venv/bin/activate" >&2
    exit 2
fi

visible=${CUDA_VISIBLE_DEVICES-unset}
if [ "${JAX_PLATFORMS:-}" = cpu ] || [ -z "$visible" ] || [ "$visible" = -1 ]; then
    gpus=0
elif [ "$visible" = unset ]; then
    gpus=$(find /dev -maxdepth 1 -name 'nvidia[0-9]*' 2>/dev/null | wc -l)
else
    IFS=, read -ra listed <<<"$visible"
    gpus=${#listed[@]}
fi
if [ "$gpus" -gt 0 ] && [ "$gpus" -lt "$count" ]; then
    echo "launch/local.sh: $count processes need a GPU each, and there are $gpus: start fewer" >&2
    exit 2
fi
if [ "$gpus" -eq 0 ]; then
    export JAX_PLATFORMS=cpu
    export XLA_FLAGS="--xla_force_host_platform_device_count=${DEVICES:-1} ${XLA_FLAGS:-}"
fi
free_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
coordinator=127.0.0.1:${PORT:-$(python3 -c "$free_port")}

children=()
for ((process = 0; process < count; process++)); do
    command=(mae-jax train "$@"
        --coordinator "$coordinator" --processes "$count" --process "$process")
    if [ "$gpus" -gt 0 ]; then
        command+=(--local-devices "$process")
    fi
    if [ -n "$dry_run" ]; then
        printf '%q ' "${command[@]}"
        echo
    else
        "${command[@]}" &
        children+=($!)
    fi
done
if [ -n "$dry_run" ]; then
    exit 0
fi

# Signaling one process is enough: it notifies the others, and all stop after the same step.
signaled=
trap 'signaled=1; kill -TERM "${children[0]}" 2>/dev/null || true' TERM INT HUP
code=0
left=$count
while [ "$left" -gt 0 ]; do
    status=0
    wait -n || status=$?
    if [ -n "$signaled" ]; then
        signaled=
        if [ "$status" -gt 128 ] && [ -n "$(jobs -p)" ]; then
            continue # `wait` was interrupted by the signal, and no process has ended
        fi
    fi
    left=$((left - 1))
    if [ "$code" -eq 0 ] || [ "$code" -gt 128 ]; then
        code=$status # an exit code is more informative than the signal that killed another process
    fi
    if [ "$status" -ne 0 ] && [ "$status" -ne 75 ] && [ -z "${last_resort:-}" ]; then
        # The others end on their own, unless they wait for a process that never started.
        (sleep 90 && kill -KILL "${children[@]}") </dev/null >/dev/null 2>&1 &
        last_resort=$!
        disown
    fi
done
if [ -n "${last_resort:-}" ]; then
    kill "$last_resort" 2>/dev/null || true
fi
exit "$code"
