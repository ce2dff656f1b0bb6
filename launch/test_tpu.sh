#!/usr/bin/env bash
# Runs the tests that compile for TPUs, on a machine without one. They need the compiler of TPUs,
# libtpu (a download of 200 MB), in a folder of its own: in an environment that has it, JAX looks for
# TPUs. The folder is build/libtpu; LIBTPU names another one that has it already.
# More arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=/dev/null
source launch/environment.sh
install_into_environment -e '.[test]'

# The version that the installed JAX asks for.
wanted=$(python -c '
from importlib.metadata import requires
print(next(one.split(";")[0].strip() for one in requires("jax") if one.startswith("libtpu")))
')
folder=${LIBTPU:-build/libtpu}
if [ -z "${LIBTPU:-}" ] && [ "$(cat "$folder/wanted" 2>/dev/null)" != "$wanted" ]; then
    echo "installing $wanted into $folder"
    rm -rf "$folder"
    python -m pip install --quiet --no-deps --target "$folder" "$wanted"
    echo "$wanted" >"$folder/wanted"
fi
mapfile -t files < <(grep -rlE '^from .* import .*needs_libtpu' tests --include='test_*.py')
export PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}"
python -m pytest -n auto --maxprocesses 4 --dist loadfile "${files[@]}" "$@"
