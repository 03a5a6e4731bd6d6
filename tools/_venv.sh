# Sourced by the scripts beside it, which run from the root of the repository.
#
#   use_venv EXTRAS     makes or reuses the virtual environment, installs the project into it (editable, with
#                       these extras) when its metadata has changed, and activates it.
#
# KPRUNE_VENV chooses the environment's folder (default: .venv), KPRUNE_PYTHON the interpreter that makes it.

fail() {
    echo "$1" >&2
    exit 1
}

find_python() {
    local python
    for python in ${KPRUNE_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        if "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    fail "No Python 3.10 to 3.13 was found: install one, or name it in KPRUNE_PYTHON."
}

make_venv() {
    local venv=$1 python
    python=$(find_python) || exit 1
    # venv needs ensurepip, which some distributions keep in a package of its own.
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments: install its venv package (on Debian or Ubuntu python3-venv)."
    echo "Making $venv with $("$python" --version)" >&2
    "$python" -m venv "$venv" || fail "$python could not make the virtual environment $venv."
}

# Installs into the environment $1, under the name $2, what pip is told to by the other arguments; once for each state
# of the project's metadata and of these arguments.
install_once() {
    local venv=$1 name=$2 stamp state
    shift 2
    [ -x "$venv/bin/python" ] || make_venv "$venv"
    stamp="$venv/.kprune-${name//[^[:alnum:]]/-}"
    state=$(cat setup.cfg pyproject.toml; pwd; echo "$*")
    if [ "$(cat "$stamp" 2>/dev/null)" != "$state" ]; then
        echo "Installing $name into $venv" >&2
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" ||
            fail "pip could not install $name; its message is above."
        printf '%s\n' "$state" >"$stamp"
    fi
}

use_venv() {
    local extras=$1 venv=${KPRUNE_VENV:-.venv}
    install_once "$venv" "kprune[$extras]" --editable ".[$extras]"
    . "$venv/bin/activate"
}
