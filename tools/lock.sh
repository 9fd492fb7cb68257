#!/bin/sh
# Pins everything that is installed, with hashes: requirements/*.txt from pyproject.toml, for every Python and
# platform at once. Arguments go to uv, such as --upgrade, or --upgrade-package NAME.
set -eu
cd "$(dirname "$0")/.."

lock() {
    output=$1
    shift
    .venv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --custom-compile-command 'make lock' --output-file "$output" "$@"
    # With hashes, pip wants a requirement with an extra pinned as such, beside the one without: scim2-models asks
    # for the first of these, msal for the second.
    awk '/^[^ #]/ { copies = sub(/^pydantic==/, "pydantic[email]==") || sub(/^pyjwt==/, "pyjwt[crypto]==") }
        copies && !/^ *#/ { print }' "$output" > "$output.more"
    cat "$output.more" >> "$output"
    rm "$output.more"
}

# What an installation needs, and what development needs on top: the same versions in both.
lock requirements/runtime.txt --extra embedded "$@"
lock requirements/dev.txt --extra demo --group dev --constraint requirements/runtime.txt "$@"
