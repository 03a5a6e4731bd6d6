#!/usr/bin/env bash
# Prunes a network on real digits, from an empty machine to a smaller TFLite file:  bash tools/demo.sh [demo arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/_venv.sh
use_venv examples,export

# TensorFlow's libraries greet on stderr while they are loaded, before any setting is read, and again where they find
# no GPU. Other errors of theirs and all of Python pass.
without_greetings() {
    grep --line-buffered -vE \
        -e '^WARNING: All log messages before absl::InitializeLog\(\) is called' \
        -e '^[IW][0-9]{4} [0-9:.]+ +[0-9]+ [a-z_]+\.cc:[0-9]+\]' \
        -e '^E[0-9]{4} .* failed call to cuInit: ' \
        -e '^To enable the following instructions: ' >&2 || true
}

export TF_CPP_MIN_LOG_LEVEL=2
python examples/digits_demo.py "$@" 2> >(without_greetings)
