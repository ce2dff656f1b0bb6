#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU, which it makes, and makes again after a preemption:
#   NAME=mae ZONE=us-east5-b TYPE=v6e-32 BUCKET=gs://mine/ bash launch/tpu_pod.sh \
#       --config configs/mae.py:L/16 --workdir /mnt/runs/mae_l16
# The workdir must be on a file system that all hosts share and that outlives them. BUCKET, if given,
# is mounted with gcsfuse at /mnt on every host; a Filestore or Lustre share is the other way.
# PROVISION is --spot (default), --reserved or empty; VERSION is the runtime of the TPU's kind.
# --dry-run first prints the commands and runs none.
set -euo pipefail
cd "$(dirname "$0")/.."

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=1
    shift
fi
: "${NAME:?a name for the TPU}" "${ZONE:?e.g. us-east5-b}" "${TYPE:?e.g. v5litepod-16, v6e-32}"
case $TYPE in
    v6e-*) default=v2-alpha-tpuv6e ;;
    v5p-*) default=v2-alpha-tpuv5 ;;
    v5litepod-*) default=v2-alpha-tpuv5-lite ;;
    *) default=tpu-ubuntu2204-base ;;
esac
VERSION=${VERSION:-$default}
PROVISION=${PROVISION---spot}

run() {
    if [ -n "$dry_run" ]; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

on_all_hosts() {
    run gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

state() {
    gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" \
        --format='value(state.state)' 2>/dev/null || echo NONE
}

make_tpu() {
    # shellcheck disable=SC2086 # empty means no flag
    run gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
        --accelerator-type="$TYPE" --runtime-version="$VERSION" $PROVISION
    until [ -n "$dry_run" ] || [ "$(state)" = ACTIVE ]; do
        case $(state) in
            FAILED | SUSPENDED) return 1 ;;
        esac
        sleep 30
    done
}

remove_tpu() {
    run gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet
}

install() {
    local archive=/tmp/$NAME.tar.gz
    run tar -czf "$archive" README.md LICENSE pyproject.toml setup.cfg mae_jax configs
    run gcloud compute tpus tpu-vm scp "$archive" "$NAME:mae_jax.tar.gz" --zone="$ZONE" --worker=all
    on_all_hosts "mkdir -p mae_jax && tar -xzf mae_jax.tar.gz -C mae_jax && cd mae_jax &&
        python3 -m venv .venv && .venv/bin/pip install --quiet -e '.[tpu]'"
    if [ -n "${BUCKET:-}" ]; then
        bucket=${BUCKET#gs://}
        on_all_hosts "sudo mkdir -p /mnt && mountpoint -q /mnt ||
            sudo gcsfuse -o allow_other --implicit-dirs ${bucket%/} /mnt"
    fi
}

arguments=$(printf '%q ' "$@")
# What still holds the TPU from an earlier start is ended first. JAX finds the hosts by itself.
train="cd mae_jax; pkill -TERM -f '[m]ae-jax train' && sleep 20;
    .venv/bin/mae-jax train $arguments; echo \"mae-jax train: exit code \$?\""
output=$(mktemp)
trap 'rm -f "$output"' EXIT

for ((start = 0; start < ${STARTS:-100}; start++)); do
    if [ -n "$dry_run" ] || [ "$(state)" != ACTIVE ]; then
        if [ -n "$dry_run" ] || [ "$(state)" != NONE ]; then
            remove_tpu || true
        fi
        make_tpu || continue
        install
    fi
    on_all_hosts "$train" 2>&1 | tee "$output" || true
    if [ -n "$dry_run" ]; then
        echo "unless the exit code is 0 or 2: again, $((${STARTS:-100} - 1)) times at most"
        exit 0
    fi
    codes=$(grep -o 'mae-jax train: exit code [0-9]*' "$output" | grep -o '[0-9]*$' | sort -u || true)
    case $codes in
        0) exit 0 ;;
        2) exit 2 ;; # a mistake, which a new TPU does not mend
    esac
    echo "launch/tpu_pod.sh: ended (${codes:-connection lost}): going on from the last checkpoint"
    sleep 30
done
exit 1
