#!/usr/bin/env bash
# Installs the test dependencies and runs the tests. Further arguments are passed to pytest:
#   bash launch/test.sh -m 'not slow'        during development: no full runs, no models of other
#                                            packages, no larger examples
#   bash launch/test.sh -m slow              only the slow tests
#   bash launch/test.sh --thorough           more slow tests: each kind of project and rank of images,
#                                            and more methods, through all commands
#   bash launch/test.sh --record-durations   writes the duration of each file to tests/durations.json
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
install_into_environment -e '.[test,parity,medical,onnx,docs]'
# Each file stays in one worker, to share fixtures; tests/helpers/durations.py runs long files first.
# One worker more than cores, as tests also wait for processes that they start.
workers=$(($(nproc) + 1))
python -m pytest -n "$((workers < 4 ? workers : 4))" --dist loadfile --no-loadscope-reorder "$@"
