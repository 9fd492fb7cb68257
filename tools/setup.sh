#!/bin/sh
# Makes .venv: the pinned requirements and this checkout, editable. Needs python3 >= 3.11 and, on Debian, installs
# that Python's venv package if it may. Called by `make setup`, which knows when there is nothing to do.
set -eu
cd "$(dirname "$0")/.."

fail() {
    printf 'error: %s\n%s\n' "$1" "$2" >&2
    exit 1
}

find_python() {
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

install_venv_module() {
    package="python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
    echo "Installing $package: this Python can't make virtual environments yet."
    as_root apt-get update -qq &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$package" >/dev/null ||
        fail "$python can't make virtual environments, and $package could not be installed" \
            "run this as root, then try again: apt-get install $package"
}

python=$(find_python)
[ -n "$python" ] || fail 'no Python >= 3.11 found' 'install one, or name it: make setup PYTHON=/path/to/python3'

"$python" -c 'import ensurepip, venv' 2>/dev/null || install_venv_module

# One that another Python made, or that was interrupted, is made anew.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    rm -rf .venv
    "$python" -m venv .venv
fi

pip() {
    .venv/bin/python -m pip --quiet --disable-pip-version-check --no-input "$@"
}

echo 'Installing the pinned requirements into .venv'
# Wheels only: no compiler is needed, and nothing unpinned takes part in a build.
pip install --root-user-action=ignore --only-binary :all: --require-hashes -r requirements/dev.txt
pip install --root-user-action=ignore --no-deps --no-build-isolation --editable .
