#!/usr/bin/env bash
# Checks the project on any machine with Python 3.10 or newer:  bash tools/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/_venv.sh
use_venv test

ruff check .
ruff format --check .
python -m pytest -n 2 "$@"
