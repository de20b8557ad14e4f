#!/bin/sh
# Update requirements.lock, and requirements-test.lock, which adds pytest. -U upgrades the versions.
set -eu
cd "$(dirname "$0")"
export UV_CUSTOM_COMPILE_COMMAND="sh lock.sh"

lock() {
    uv pip compile --universal --generate-hashes --no-emit-index-url --quiet "$@"
}

lock "$@" pyproject.toml -o requirements.lock
lock "$@" pyproject.toml --group test -c requirements.lock -o requirements-test.lock
