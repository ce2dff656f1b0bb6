#!/usr/bin/env bash
# Trains on SLURM with one task a GPU, and goes on by itself after preemption and time limits:
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#       --config configs/mae.py:L/16 --workdir runs/mae_l16
# One task a node works as well (--ntasks-per-node=1): it uses all GPUs of its node. Give GPUs to nodes
# and not to tasks (--gpus-per-task): tasks that cannot see each other's are slower at talking.
# Workdir, code and .venv must be on a file system that all nodes share.
# `bash launch/slurm.sh --dry-run ARGUMENTS` prints what would run, and runs nothing.
#SBATCH --job-name=mae-jax
#SBATCH --time=24:00:00
#SBATCH --cpus-per-task=8
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=mae-jax-%j.log
set -euo pipefail

dry_run=
if [ "${1:-}" = --dry-run ]; then
    dry_run=1
    shift
fi
# If one task is gone the others end by themselves within a minute, and say which: let them. Tasks
# are numbered node by node, so that groups of config.mesh.fsdp are in a node where they fit.
step=(srun --kill-on-bad-exit=0 --distribution=block --cpus-per-task="${SLURM_CPUS_PER_TASK:-8}" mae-jax train "$@")
if [ -n "$dry_run" ]; then
    grep '^#SBATCH' "$0"
    printf '%q ' "${step[@]}"
    printf "\non exit code 75: scontrol requeue \$SLURM_JOB_ID\n"
    exit 0
fi

if [ -z "${SLURM_SUBMIT_DIR:-}" ]; then
    echo "launch/slurm.sh: start it with sbatch, or give --dry-run" >&2
    exit 2
fi
# A batch script runs as a copy, whose own place says nothing.
cd "$SLURM_SUBMIT_DIR"
if [ -f .venv/bin/activate ]; then
    # shellcheck source=/dev/null
    source .venv/bin/activate
fi
if ! command -v mae-jax >/dev/null; then
    echo "launch/slurm.sh: there is no mae-jax on the PATH: make .venv in $SLURM_SUBMIT_DIR" >&2
    exit 2
fi
# The signal goes to the tasks and not to this shell: they save, and end with 75.
code=0
"${step[@]}" || code=$?
if [ "$code" -eq 75 ]; then
    echo "stopped with everything saved: back into the queue"
    scontrol requeue "$SLURM_JOB_ID" ||
        echo "launch/slurm.sh: the job is not queued again: sbatch the same command to go on" >&2
fi
exit "$code"
