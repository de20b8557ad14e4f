#!/bin/sh
# Write requirements.lock (what runs) and requirements-test.lock (the same and pytest) again.
# Pass -U to take newer versions.
set -eu
cd "$(dirname "$0")"
export UV_CUSTOM_COMPILE_COMMAND="sh lock.sh"

lock() {
    uv pip compile --universal --generate-hashes --no-emit-index-url --quiet "$@"
}

lock "$@" pyproject.toml -o requirements.lock
lock "$@" pyproject.toml --group test -c requirements.lock -o requirements-test.lock
