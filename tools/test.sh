#!/usr/bin/env bash
# Checks the project on any machine with Python 3.10 or newer:  bash tools/test.sh [pytest arguments]
#
# With arguments only the newest versions are tested; without, tools/test_environments.sh runs as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/_venv.sh
use_venv test

ruff check .
ruff format --check .
status=0
[ $# -gt 0 ] || bash tools/test_environments.sh || status=$?
python -m pytest -n 2 --durations=12 "$@" || status=$?
exit "$status"
