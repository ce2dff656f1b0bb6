#!/usr/bin/env bash
# Runs the tests, with what they compare against. More arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
install_into_environment -e '.[test,parity,medical,onnx]'
python -m pytest -n auto --maxprocesses 4 --dist loadfile "$@"
