#!/usr/bin/env bash
# Installs the compilers of TPUs (libtpu, 200 MB) and NVIDIA GPUs (JAX's plugin, 180 MB), in the
# versions that go with the installed JAX, for machines without either:
#   bash launch/compilers.sh && PYTHONPATH=build/compilers mae-jax bench compile --config mae:B/16 --topology v5e:4x4
# They go into a folder of their own, build/compilers: in an environment that has them, JAX looks
# for TPUs and GPUs. Where they are already, nothing is done.
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
