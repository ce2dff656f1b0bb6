#!/usr/bin/env bash
# Trains on all hosts of a Cloud TPU, which it makes, and makes again after a preemption:
#   NAME=mae ZONE=us-east5-b TYPE=v6e-32 BUCKET=gs://mine bash launch/tpu_pod.sh \
#       --config configs/mae.py:L/16 --workdir /mnt/runs/l16 \
#       --config.data.train="folder('/mnt/imagenet/train')"
# The workdir must be on a file system that all hosts share and that outlives them, and the data
# where all see it. BUCKET, if given, is mounted with gcsfuse at /mnt on every host; a Filestore or
# Lustre share is the other way. Give the bucket a hierarchical namespace: a folder is renamed when
# a checkpoint is done, which in other buckets copies each file and can stop half-way.
# SLICES (default 1) is how many TPUs of that type train together; config.mesh.fsdp may be at most
# the devices of one. Put your key into ssh-agent first (ssh-add ~/.ssh/google_compute_engine).
# PROVISION is --spot (default), --reserved or empty; VERSION is the runtime of the TPU's kind.
# STARTS (default 100) is how often it starts at most, as it does after a preemption or a fault.
# Started again while the TPU is in the queue, it waits there.
# The TPU stays, and costs, after the training: the last line printed says how to delete it.
# --dry-run first prints the commands and runs none.
set -euo pipefail
cd "$(dirname "$0")/.."

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=1
    shift
fi
need() {
    if [ -z "${!1:-}" ]; then
        echo "launch/tpu_pod.sh: set $1: $2" >&2
        exit 2
    fi
}
need NAME "a name for the TPU"
need ZONE "e.g. us-east5-b"
need TYPE "e.g. v5litepod-16, v6e-32"
case " $* " in
    *" --workdir "* | *" --workdir="*) ;;
    *)
        echo "launch/tpu_pod.sh: give --workdir, on what all hosts share (/mnt/runs/l16)" >&2
        exit 2
        ;;
esac
SLICES=${SLICES:-1}
if ! [[ $SLICES =~ ^[1-9][0-9]*$ ]]; then
    echo "launch/tpu_pod.sh: SLICES=$SLICES must be a whole number" >&2
    exit 2
fi
if ! [[ $TYPE =~ ^v[0-9][a-z]*-[1-9][0-9]*$ ]]; then
    echo "launch/tpu_pod.sh: TYPE=$TYPE is no v5litepod-16, v6e-32 or v5p-64;" \
        "for TPU7x use launch/kubernetes.sh" >&2
    exit 2
fi
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

# All at the same time: by default, those beyond 64 would wait until these have ended.
all=(--zone="$ZONE" --node=all --worker=all --batch-size=all)

on_all_hosts() {
    run gcloud compute tpus queued-resources ssh "$NAME" "${all[@]}" --command="$1"
}

state() {
    gcloud compute tpus queued-resources describe "$NAME" --zone="$ZONE" \
        --format='value(state.state)' 2>/dev/null || echo NONE
}

make_tpu() {
    local nodes=(--node-id="$NAME")
    if [ "$SLICES" -gt 1 ]; then
        nodes=(--node-count="$SLICES" --node-prefix="$NAME")
    fi
    # shellcheck disable=SC2086 # empty means no flag
    run gcloud compute tpus queued-resources create "$NAME" "${nodes[@]}" --zone="$ZONE" \
        --accelerator-type="$TYPE" --runtime-version="$VERSION" $PROVISION
}

# Waits in the queue until the TPU is there; fails if it will not be.
wait_for_tpu() {
    while [ -z "$dry_run" ]; do
        case $(state) in
            ACTIVE) break ;;
            NONE | FAILED | SUSPENDING | SUSPENDED | DELETING) return 1 ;;
        esac
        sleep 30
    done
}

# Whatever state the TPU is in, an active one; a place in the queue is kept.
get_tpu() {
    local found
    found=$(if [ -z "$dry_run" ]; then state; fi)
    case $found in
        NONE) make_tpu || return 1 ;;
        "" | FAILED | SUSPENDING | SUSPENDED) # empty in a dry run, which shows all commands
            run "${delete[@]}" || true
            make_tpu || return 1
            ;;
        *) echo "launch/tpu_pod.sh: $NAME is $found: waiting for it. To ask anew: ${delete[*]}" ;;
    esac
    wait_for_tpu
}

delete=(gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet)

# What still trains from an earlier start holds the TPU: it is told to save, and waited for. The
# pattern is that of the Python process, as the shell that runs this line has its words too.
old='^[^ ]*python[0-9.]* [^ ]*mae-jax train '
end_old="pkill -TERM -f '$old'
    for i in \$(seq 120); do pgrep -f '$old' >/dev/null || break; sleep 1; done"

# Brings this checkout and Python to the hosts, whose own Python is too old. It can be run again.
install() {
    local archive=/tmp/$NAME.tar.gz bucket=${BUCKET:-}
    bucket=${bucket#gs://}
    run tar -czf "$archive" README.md LICENSE pyproject.toml setup.cfg mae_jax configs || return 1
    run gcloud compute tpus queued-resources scp "$archive" "$NAME:mae_jax.tar.gz" \
        "${all[@]}" || return 1
    on_all_hosts "$end_old
        mkdir -p mae_jax && tar -xzf mae_jax.tar.gz -C mae_jax && cd mae_jax &&
        curl -LsSf https://astral.sh/uv/install.sh | sh &&
        ~/.local/bin/uv venv --allow-existing --python 3.12 .venv &&
        ~/.local/bin/uv pip install -q -e '.[tpu]'" || return 1
    if [ -n "$bucket" ]; then # no metadata is kept: each host must see what the others write
        on_all_hosts "sudo mkdir -p /mnt && mountpoint -q /mnt ||
            sudo gcsfuse -o allow_other --uid \$(id -u) --gid \$(id -g) --implicit-dirs \
                --rename-dir-limit 100000 --metadata-cache-ttl-secs 0 ${bucket%/} /mnt" || return 1
    fi
}

arguments=$(printf '%q ' "$@")
# JAX finds the hosts and the slices by itself.
train="cd mae_jax; $end_old
    .venv/bin/mae-jax train $arguments; echo \"mae-jax train: exit code \$?\""
output=$(mktemp)
trap 'rm -f "$output"; echo "the TPU goes on costing until you run: ${delete[*]}"' EXIT

installed= # not even on a TPU that is there: it may have older code, or half of it
for ((start = 0; start < ${STARTS:-100}; start++)); do
    if [ "$start" -gt 0 ]; then
        sleep 30
    fi
    if [ -n "$dry_run" ] || [ "$(state)" != ACTIVE ]; then
        installed=
        if ! get_tpu; then
            echo "launch/tpu_pod.sh: got no TPU (start $((start + 1)))"
            continue
        fi
    fi
    if [ -z "$installed" ]; then
        if ! install; then
            echo "launch/tpu_pod.sh: could not install on all hosts (start $((start + 1)))"
            continue
        fi
        installed=1
    fi
    on_all_hosts "$train" 2>&1 | tee "$output" || true
    if [ -n "$dry_run" ]; then
        echo "unless the exit code is 0 or 2: again, $((${STARTS:-100} - 1)) times at most"
        exit 0
    fi
    codes=$(sed -n 's/.*mae-jax train: exit code \([0-9]*\).*/\1/p' "$output" | sort -u)
    case $codes in
        0) exit 0 ;;
        2) exit 2 ;; # a mistake, which a new TPU does not mend
    esac
    echo "launch/tpu_pod.sh: ended (${codes:-connection lost}): going on from the last checkpoint"
done
exit 1
