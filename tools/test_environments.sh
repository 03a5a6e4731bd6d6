#!/usr/bin/env bash
# Tests the core where users have something else than the newest of everything:
#
#   bash tools/test_environments.sh [oldest] [without_tensorflow]      (both, at the same time, where none is named)
#
#   oldest               the oldest Keras and TensorFlow that setup.cfg admits
#   without_tensorflow   TensorFlow not installed: the PyTorch backend, then JAX
#
# Each has a virtual environment of its own, kept beside that of tools/test.sh (see tools/_venv.sh); kprune itself is
# taken from this checkout, without what it depends on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/_venv.sh

# What traces, prunes, masks while it trains, repairs and looks at data; exports, tools and examples are tested with the
# newest versions.
CORE=(tests/graph/test_graph.py tests/graph/test_batches.py tests/surgery/test_least_squares.py
    tests/criteria/test_data_criteria.py tests/criteria/test_relevance.py)
CALLBACKS=tests/pruning/callbacks/test_callbacks.py
TRAINING=($CALLBACKS::test_the_target_is_met_and_masks_hold_with_every_optimizer $CALLBACKS::test_mixed_precision
    $CALLBACKS::test_a_killed_run_resumes_with_the_same_masks)
TOOLS=(absl-py hypothesis pytest)

# What setup.cfg says of package $1 after the comparison $2: `in_setup_cfg "keras" ">="` is 3.10.
in_setup_cfg() {
    sed -n "s/^ *$1$2 *\([0-9.]*\)$/\1/p" setup.cfg | head -n 1
}

# pytest with what the virtual environment in the folder $1 has, on the backend $2; the other arguments are pytest's.
run_tests() {
    local venv=$1 backend=$2
    shift 2
    echo "$("$venv/bin/python" -m pip list --disable-pip-version-check 2>/dev/null |
        awk '/^(keras|tensorflow(_cpu|-cpu)?|jax|torch|numpy) /{printf "%s %s, ", $1, $2}')backend $backend"
    PYTHONPATH=$PWD KERAS_BACKEND=$backend "$venv/bin/python" -m pytest --quiet -p no:cacheprovider "$@"
}

# The interpreter for old versions, which have no builds for Python 3.13.
older_python() {
    local python
    for python in ${KPRUNE_PYTHON:-python3} python3.12 python3.11 python3.10; do
        if "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
}

oldest() {
    local venv="${KPRUNE_VENV:-.venv}-oldest" tensorflow=tensorflow python
    python=$(older_python)
    if [ -z "$python" ]; then
        echo "Skipped: no Python 3.10 to 3.12 was found, and the oldest TensorFlow has no build for a newer one."
        return
    fi
    # The CPU build is a third of the size, where there is one.
    [ "$(uname -sm)" != "Linux x86_64" ] || tensorflow=tensorflow-cpu
    KPRUNE_PYTHON=$python install_once "$venv" "the oldest versions" "${TOOLS[@]}" \
        "keras==$(in_setup_cfg keras '>=')" "$tensorflow==$(in_setup_cfg tensorflow '>=')" || return
    run_tests "$venv" tensorflow "${CORE[@]}" "${TRAINING[@]}"
}

without_tensorflow() {
    local venv="${KPRUNE_VENV:-.venv}-without-tensorflow"
    install_once "$venv" "Keras, JAX and PyTorch" "${TOOLS[@]}" keras jax "torch==$(in_setup_cfg torch '==')" || return
    run_tests "$venv" torch tests/test_without_tensorflow.py "${CORE[@]}" "${TRAINING[@]}" \
        tests/rules/test_operations.py tests/pruning/callbacks/test_gradual.py || return
    # JAX compiles each operation for each shape, so fewer structures.
    run_tests "$venv" jax tests/test_without_tensorflow.py tests/graph/test_graph.py \
        -k "without or residual and not inverted"
}

[ $# -gt 0 ] || set -- oldest without_tensorflow
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
processes=()
for name in "$@"; do
    case $name in
    oldest | without_tensorflow) "$name" >"$logs/$name" 2>&1 & ;;
    *) fail "There is no environment $name: there are oldest and without_tensorflow." ;;
    esac
    processes+=($!)
done
status=0
for name in "$@"; do
    wait "${processes[0]}" || status=$?
    processes=("${processes[@]:1}")
    echo "== Environment: $name"
    cat "$logs/$name"
done
exit "$status"
