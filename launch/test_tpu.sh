#!/usr/bin/env bash
# Runs the tests that compile for TPUs and NVIDIA GPUs, on a machine without either. Installs the
# compilers first, see launch/compilers.sh. Further arguments are passed to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=/dev/null
source launch/environment.sh
install_into_environment -e '.[test]'
bash launch/compilers.sh
mapfile -t files < <(grep -rlE '^from .* import .*needs_(libtpu|cuda)' tests --include='test_*.py')
export PYTHONPATH="$PWD/build/compilers${PYTHONPATH:+:$PYTHONPATH}"
python -m pytest -n auto --maxprocesses 2 --dist loadfile "${files[@]}" "$@"
