#!/usr/bin/env bash
# Runs the tests, with what they compare against. More arguments go to pytest:
#   bash launch/test.sh -m 'not slow'        all but whole runs, other packages' models and larger
#                                            examples: while you work
#   bash launch/test.sh -m slow              these
#   bash launch/test.sh --thorough           more of these: each kind of project and rank of images,
#                                            through all commands
#   bash launch/test.sh --record-durations   writes what each file costs to tests/durations.json
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
install_into_environment -e '.[test,parity,medical,onnx,docs]'
# A file stays in one worker, for its fixtures; tests/helpers/durations.py puts long ones first.
python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
