#!/usr/bin/env bash
# Prunes a network on real digits, from an empty machine to a smaller TFLite file:  bash tools/demo.sh [demo arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/_venv.sh
use_venv examples,export

python examples/digits_demo.py "$@"
