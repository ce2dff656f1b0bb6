#!/usr/bin/env bash
# Trains on TPU hosts of a GKE cluster with the JobSet controller:
#   NAME=mae IMAGE=us-docker.pkg.dev/mine/mae_jax CLAIM=runs HOSTS=4 TOPOLOGY=4x4 \
#       bash launch/kubernetes.sh --config mae:L/16 --workdir /runs/l16 \
#       --config.data.train="folder('/runs/imagenet/train')"
# IMAGE has mae_jax[tpu] installed, which includes the configs. CLAIM is a volume claim that all pods
# can write to (Filestore, Lustre, a bucket with a hierarchical namespace). It is mounted at /runs,
# for the workdir, and for the data unless IMAGE holds it. HOSTS times CHIPS (default 4) must be the
# number of chips of TOPOLOGY, in each of SLICES (default 1) slices; config.mesh.fsdp may be at most
# the devices of one slice. SPOT=false requests nodes that are not spot nodes.
# --dry-run as the first argument prints the manifest and applies nothing.
set -euo pipefail

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=1
    shift
fi
need() {
    if [ -z "${!1:-}" ]; then
        echo "launch/kubernetes.sh: set $1: $2" >&2
        exit 2
    fi
}
need NAME "a name for the job"
need IMAGE "a container image"
need CLAIM "a volume claim"
need HOSTS "number of hosts of a slice"
need TOPOLOGY "e.g. 4x4"
case " $* " in
    *" --workdir "* | *" --workdir="*) ;;
    *)
        echo "launch/kubernetes.sh: give --workdir, on the volume of all pods (/runs/l16)" >&2
        exit 2
        ;;
esac
export NAME IMAGE CLAIM HOSTS TOPOLOGY
export ACCELERATOR=${ACCELERATOR:-tpu-v6e-slice} CHIPS=${CHIPS:-4} SLICES=${SLICES:-1}
export SPOT=${SPOT:-true} RESTARTS=${RESTARTS:-100}
refuse() {
    echo "launch/kubernetes.sh: $1" >&2
    exit 2
}
for name in HOSTS CHIPS SLICES; do
    [[ ${!name} =~ ^[1-9][0-9]*$ ]] || refuse "$name=${!name} must be a positive integer"
done
[[ $TOPOLOGY =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] ||
    refuse "TOPOLOGY=$TOPOLOGY must be of the form 4x4, or 2x2x4"
if [ $((HOSTS * CHIPS)) -ne $((${TOPOLOGY//x/*})) ]; then
    refuse "HOSTS=$HOSTS times CHIPS=$CHIPS are not the $((${TOPOLOGY//x/*})) chips of $TOPOLOGY"
fi
if [ "$SLICES" -gt 1 ] && [ "$HOSTS" -eq 1 ]; then
    refuse "SLICES=$SLICES: GKE joins slices of several hosts only: choose a larger TOPOLOGY"
fi

fill='
import json, os, string, sys
command = json.dumps(["mae-jax", "train", *sys.argv[2:]])
print(string.Template(open(sys.argv[1]).read()).substitute(os.environ, COMMAND=command), end="")
'
manifest=$(python3 -c "$fill" "$(dirname "$0")/kubernetes.yaml" "$@")
if [ "$SPOT" != true ]; then
    manifest=$(grep -v gke-spot <<<"$manifest") # removes the selector for spot nodes
fi
if [ -n "$dry_run" ]; then
    printf '%s\n' "$manifest"
else
    printf '%s\n' "$manifest" | kubectl apply -f -
fi
