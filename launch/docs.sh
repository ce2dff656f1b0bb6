#!/usr/bin/env bash
# Builds the documentation site into docs/_build, with warnings as errors. Open docs/_build/index.html.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
install_into_environment -e '.[docs]'
python -m sphinx -W --keep-going -q -b html docs docs/_build
echo "wrote docs/_build/index.html"
