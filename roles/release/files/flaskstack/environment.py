"""Make the Python environment of releases that have the same lock."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from flaskstack.uv import (
    CACHE,
    OPTIONS,
    Index,
    index_settings,
    install_uv,
    limit_cache,
    run,
)
from flaskstack.errors import RefusedError

DOCUMENTATION = """
module: install_environment
short_description: Make a Python environment and install a lock into it
description:
  - Makes the environment with uv, which it installs first where it is missing.
  - The file C(.complete) is written last. Of an environment that is not complete nothing is left.
author: Flaskstack
"""
WANTED: dict[str, Any] = {
    "path": {"type": "path", "required": True},  # an environment cannot be moved
    "python": {"type": "path", "required": True},  # interpreter
    "lock": {"type": "str", "required": True},  # requirements with hashes
    "complete": {"type": "bool", "required": True},  # the lock has all that its packages need
    "unhashed": {"type": "list", "elements": "str", "default": []},  # requirements beside the lock
}


def install(wanted: dict[str, Any], uv: str, index: Index) -> None:
    """Make the environment where it is to stay."""
    folder = Path(wanted["path"])
    lock = folder / "requirements.lock"
    run([uv, "venv", "--quiet", f"--python={wanted['python']}", str(folder)], index)
    lock.write_text(wanted["lock"])
    # Copies, so that a file changed by hand is changed in one environment alone.
    pip = [uv, "pip", "install", "--quiet", f"--python={folder / 'bin/python'}"]
    pip += [f"--cache-dir={CACHE}", "--link-mode=copy", "--compile-bytecode"]
    hashed = ["--require-hashes", f"--requirements={lock}"]
    hashed += ["--no-deps"] if wanted["complete"] else []
    if "--extra-index-url" in wanted["lock"]:  # a file of either is the one that was locked
        hashed.append("--index-strategy=unsafe-best-match")
    run([*pip, *hashed], index)
    if wanted["unhashed"]:
        run([*pip, "--no-deps", *wanted["unhashed"]], index)
    (folder / ".lock").unlink(missing_ok=True)  # which uv lets everybody write to
    (folder / ".complete").touch()


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS | WANTED)
    wanted, folder = module.params, Path(module.params["path"])
    if (folder / ".complete").exists():
        module.exit_json(changed=False)
    os.umask(0o022)
    CACHE.mkdir(parents=True, exist_ok=True)
    CACHE.chmod(0o700)
    try:
        with index_settings(wanted) as index:
            shutil.rmtree(folder, ignore_errors=True)
            uv = install_uv(wanted["uv_lock"], index)
            install(wanted, uv, index)
            limit_cache(uv, index)
    except RefusedError as error:
        module.fail_json(msg=str(error))
    finally:
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
