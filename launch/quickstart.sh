#!/usr/bin/env bash
# Trains a small masked autoencoder on the embedded images, on the CPU, then fine-tunes it with a
# tenth of the labels, beside the same network from scratch, and shows what both have learned.
# Needs Python 3.11 or newer. Further arguments are passed to `mae-jax sweep`.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
install_into_environment -e .
export JAX_PLATFORMS=cpu
sweep() { mae-jax sweep --config configs/quickstart_sweep.py "$@"; }
sweep --only mae/frozen/0 "$@" # pre-training, on all cores
sweep --jobs 2 "$@"            # then both others side by side
run=quickstart_sweep/mae/frozen/0
if [ -d "runs/$run" ] && [ ! -e runs/quickstart ]; then
    ln -s "$run" runs/quickstart # where the documentation looks for the pre-trained encoder
fi
