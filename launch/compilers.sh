#!/usr/bin/env bash
# Installs the compilers for TPUs (libtpu, 200 MB) and NVIDIA GPUs (JAX's plugin, 180 MB) that match
# the installed JAX, to compile on machines without TPU or GPU:
#   bash launch/compilers.sh && PYTHONPATH=build/compilers mae-jax bench compile --config mae:B/16 --topology v5e:4x4
# They are installed into build/compilers, not into the environment, where JAX would use them to look
# for TPUs and GPUs. Does nothing if they are installed already.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=/dev/null
source launch/environment.sh

folder=build/compilers
wanted=$(python -c '
from importlib.metadata import requires, version
print(next(one.split(";")[0].strip() for one in requires("jax") if one.startswith("libtpu")))
print("jax-cuda12-plugin==" + version("jax"), "jax-cuda12-pjrt==" + version("jax"))
' | xargs)
if [ "$(cat "$folder/wanted" 2>/dev/null)" != "$wanted" ]; then
    echo "installing $wanted into $folder"
    rm -rf "$folder"
    # shellcheck disable=SC2086 # a list
    python -m pip install --quiet --no-deps --target "$folder" $wanted
    echo "$wanted" >"$folder/wanted"
fi
