#!/usr/bin/env bash
# Trains a small masked autoencoder on the embedded images, on the CPU, and shows what it learned.
# Needs Python 3.11 or newer. Further arguments are passed to `mae-jax train`.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
install_into_environment -e .
mae-jax train --config configs/quickstart.py --workdir runs/quickstart "$@"
