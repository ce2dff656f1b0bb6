#!/usr/bin/env bash
# Creates a Cloud TPU, trains on all its hosts, and recreates it after a preemption:
#   NAME=mae ZONE=us-east5-b TYPE=v6e-32 BUCKET=gs://mine bash launch/tpu_pod.sh \
#       --config configs/mae.py:L/16 --workdir /mnt/runs/l16 \
#       --config.data.train="folder('/mnt/imagenet/train')"
# The workdir must be on a persistent file system that all hosts share, and the data readable by all
# hosts. BUCKET, if given, is mounted with gcsfuse at /mnt on every host; the alternative is a
# Filestore or Lustre share. Create the bucket with a hierarchical namespace: finishing a checkpoint
# renames a folder, which in other buckets copies each file and can be interrupted half-way.
# SLICES (default 1) is the number of TPUs of that type to train on; config.mesh.fsdp may be at most
# the devices of one. Add your key to ssh-agent first (ssh-add ~/.ssh/google_compute_engine).
# PROVISION is --spot (default), --reserved or empty; VERSION is the runtime version of the TPU.
# STARTS (default 100) limits the number of starts, including those after a preemption or a failure.
# If the TPU is already in the queue, the script waits for it.
# The TPU is kept and billed after training: the last line of output is the command to delete it.
# --dry-run as the first argument prints the commands and runs none.
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
        echo "launch/tpu_pod.sh: give --workdir, on a shared file system (/mnt/runs/l16)" >&2
        exit 2
        ;;
esac
SLICES=${SLICES:-1}
if ! [[ $SLICES =~ ^[1-9][0-9]*$ ]]; then
    echo "launch/tpu_pod.sh: SLICES=$SLICES must be a positive integer" >&2
    exit 2
fi
if ! [[ $TYPE =~ ^v[0-9][a-z]*-[1-9][0-9]*$ ]]; then
    echo "launch/tpu_pod.sh: TYPE=$TYPE must be of the form v5litepod-16, v6e-32 or v5p-64;" \
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

# Runs on all hosts at once: by default, hosts beyond 64 would wait for the first 64 to finish.
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

# Waits in the queue until the TPU is active; fails if the request has failed or is being deleted.
wait_for_tpu() {
    while [ -z "$dry_run" ]; do
        case $(state) in
            ACTIVE) break ;;
            NONE | FAILED | SUSPENDING | SUSPENDED | DELETING) return 1 ;;
        esac
        sleep 30
    done
}

# Makes the TPU active from any state: keeps a request in the queue, replaces a failed TPU.
get_tpu() {
    local current
    current=$(if [ -z "$dry_run" ]; then state; fi)
    case $current in
        NONE) make_tpu || return 1 ;;
        "" | FAILED | SUSPENDING | SUSPENDED) # empty in a dry run, which shows all commands
            run "${delete[@]}" || true
            make_tpu || return 1
            ;;
        *) echo "launch/tpu_pod.sh: $NAME is $current: waiting. To request a new one: ${delete[*]}" ;;
    esac
    wait_for_tpu
}

delete=(gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force --quiet)

# A process of an earlier start may still hold the TPU: signals it to save, and waits for its end. The
# pattern matches only the Python process, since the shell that runs this line contains it, too.
old='^[^ ]*python[0-9.]* [^ ]*mae-jax train '
end_old="pkill -TERM -f '$old'
    for i in \$(seq 120); do pgrep -f '$old' >/dev/null || break; sleep 1; done"

# Installs this checkout and a newer Python on the hosts; idempotent.
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
    if [ -n "$bucket" ]; then # without a metadata cache: each host must see files of the others
        on_all_hosts "sudo mkdir -p /mnt && mountpoint -q /mnt ||
            sudo gcsfuse -o allow_other --uid \$(id -u) --gid \$(id -g) --implicit-dirs \
                --rename-dir-limit 100000 --metadata-cache-ttl-secs 0 ${bucket%/} /mnt" || return 1
    fi
}

arguments=$(printf '%q ' "$@")
# JAX detects the hosts and slices.
train="cd mae_jax; $end_old
    .venv/bin/mae-jax train $arguments; echo \"mae-jax train: exit code \$?\""
output=$(mktemp)
trap 'rm -f "$output"; echo "the TPU is billed until you run: ${delete[*]}"' EXIT

installed= # also for an existing TPU, which may have old or incomplete code
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
        echo "unless the exit code is 0 or 2: repeat, at most $((${STARTS:-100} - 1)) times"
        exit 0
    fi
    codes=$(sed -n 's/.*mae-jax train: exit code \([0-9]*\).*/\1/p' "$output" | sort -u)
    case $codes in
        0) exit 0 ;;
        2) exit 2 ;; # a user error, which a new TPU would not fix
    esac
    echo "launch/tpu_pod.sh: ended (${codes:-connection lost}): resuming from the last checkpoint"
done
exit 1
