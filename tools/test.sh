#!/usr/bin/env bash
# Checks the project on any machine with Python 3.10 or newer:
#
#   bash tools/test.sh                      the style, and all tests but the slow ones
#   bash tools/test.sh --all                everything: slow tests too, and tools/test_environments.sh
#   bash tools/test.sh [pytest arguments]   the style, and these tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/_venv.sh
use_venv test

ruff check .
ruff format --check .
status=0
case "${1:-}" in
"") set -- -m "not slow" ;;
--all)
    shift
    bash tools/test_environments.sh || status=$?
    ;;
esac
python -m pytest -n 2 --durations=12 "$@" || status=$?
exit "$status"
