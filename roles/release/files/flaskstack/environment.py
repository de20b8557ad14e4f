"""Create the Python environment that releases with the same lock share."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from shlex import join, quote
from typing import Any

from flaskstack import python, sandbox, uv

CACHE_LIMIT = 1024**2  # KiB; a cache that is still larger after pruning is removed
SCRIPT = """uv venv --quiet --python={python} .
cp {files}/lock {lock}
{install}
rm -f .lock .gitignore
uv cache prune --quiet
[ "$(du -sk "$UV_CACHE_DIR" | cut -f1)" -le {limit} ] || uv cache clean --quiet
touch .complete
"""


def name(lock_hash: str, executable: str) -> str:
    """Name an environment by the hash of its lock and the path of its interpreter."""
    digest = hashlib.sha256(f"{lock_hash} {executable}".encode()).hexdigest()
    return f"{digest[:16]}-{Path(executable).name}"


def install(params: dict[str, Any]) -> dict[str, Any]:
    """Create an environment atomically; a complete one is not changed.

    Keys: app, root, environment (its name), python (executable), lock (text), lock_name
    (requirements.txt or pylock.toml), complete (the lock has all dependencies), unhashed
    (requirements installed in addition to the lock), uv_lock, index_url, index_ca,
    build_hosts (optional list).
    """
    folder = Path(params["root"], "environments", params["environment"])
    if (folder / ".complete").exists():
        return {"changed": False}
    lock, unhashed = params["lock"], params["unhashed"]
    index = uv.Index(params["index_url"], params["index_ca"])
    program = uv.install(params["uv_lock"], index)
    pip = ["uv", "pip", "install", "--quiet", "--python=bin/python", "--link-mode=copy"]
    hashed = [f"--requirements={params['lock_name']}"]
    hashed += ["--no-deps"] if params["complete"] else []
    hashed += [] if params["lock_name"].endswith(".toml") else ["--require-hashes"]
    if "--extra-index-url" in lock:  # hashes identify a file whichever index it comes from
        hashed.append("--index-strategy=unsafe-best-match")
    commands = [hashed, ["--no-deps", *unhashed]] if unhashed else [hashed]
    commands[-1].append("--compile-bytecode")
    script = SCRIPT.format(
        python=quote(params["python"]),
        lock=quote(params["lock_name"]),
        install="\n".join(join(pip + options) for options in commands),
        limit=CACHE_LIMIT,
        files=sandbox.FILES,
    )
    with sandbox.opened(
        params["app"],
        folder,
        variables=index.variables | python.variables(params["python"]) | {"PATH": uv.path(program)},
        inputs=index.files | {"lock": lock},
        trusted=[*index.trusted, *params.get("build_hosts", [])],
        named=index.named("\n".join([lock, *unhashed])),
    ) as box:
        box.run("Installing the environment", script)
        shutil.rmtree(folder, ignore_errors=True)  # left incomplete by an earlier attempt
        box.keep()
    return {"changed": True}
