#!/bin/sh
# Pins everything that is installed, with hashes: requirements/*.txt from pyproject.toml, for every Python and
# platform at once. Arguments go to uv, such as --upgrade, or --upgrade-package NAME.
set -eu
cd "$(dirname "$0")/.."

lock() {
    output=$1
    shift
    # Extras are kept: with hashes pip wants every requirement pinned as it is asked for.
    .venv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
        --no-strip-extras --no-emit-index-url --custom-compile-command 'make lock' --output-file "$output" "$@"
}

# What an installation needs, and what development needs on top: the same versions in both.
lock requirements/runtime.txt --extra embedded "$@"
lock requirements/dev.txt --extra demo --group dev --constraint requirements/runtime.txt "$@"
