#!/usr/bin/env bash
# Trains on SLURM with one task per GPU, and resumes automatically after preemption and time limits:
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#       --config configs/mae.py:L/16 --workdir runs/mae_l16
# One task per node works as well (--ntasks-per-node=1): it uses all GPUs of its node. Request GPUs per
# node, not per task (--gpus-per-task): communication is slower if a task cannot see the GPUs of others.
# Workdir, code and .venv must be on a file system that all nodes share.
# `bash launch/slurm.sh --dry-run ARGUMENTS` prints the commands and runs none.
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
# SLURM must not kill tasks: if one ends, the others notice, report which, and end within a minute.
# Tasks are numbered node by node, so that groups of config.mesh.fsdp stay in one node if they fit.
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
# SLURM runs a copy of this script, so its own path does not lead to the checkout.
cd "$SLURM_SUBMIT_DIR"
if [ -f .venv/bin/activate ]; then
    # shellcheck source=/dev/null
    source .venv/bin/activate
fi
if ! command -v mae-jax >/dev/null; then
    echo "launch/slurm.sh: mae-jax is not on the PATH: create .venv in $SLURM_SUBMIT_DIR" >&2
    exit 2
fi
# The signal goes to the tasks, not to this shell: they save a checkpoint and exit with 75.
code=0
"${step[@]}" || code=$?
if [ "$code" -eq 75 ]; then
    echo "stopped after saving a checkpoint: requeuing the job"
    scontrol requeue "$SLURM_JOB_ID" ||
        echo "launch/slurm.sh: the job was not requeued: sbatch the same command to resume" >&2
fi
exit "$code"
