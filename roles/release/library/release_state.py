"""Compare a release with what a host has."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: release_state
short_description: Compare a release with what a host has
description: Changes nothing. Says what is missing, and what may go once the release is in use.
author: Flaskstack
"""
OPTIONS = {
    "root": {"type": "path", "required": True},
    "id": {"type": "str", "required": True},
    "lock_hash": {"type": "str", "required": True},
    "python": {"type": "str", "required": True},
    "units": {"type": "list", "elements": "str", "required": True},
    "keep": {"type": "int", "required": True},
}


def interpreter(module: AnsibleModule, name: str) -> tuple[str, str]:
    """Return an interpreter's version and real path; both empty when there is none."""
    path = module.get_bin_path(name)
    if not path:
        return "", ""
    asked = "import platform, sys; print(platform.python_version(), sys.executable)"
    _, output, _ = module.run_command([path, "-I", "-c", asked], check_rc=True)
    version, executable = output.split(maxsplit=1)
    return version, os.path.realpath(executable.strip())


def environment_of(release: Path) -> str:
    """Return the name of a release's environment."""
    link = release / ".venv"
    return Path(os.readlink(link)).name if link.is_symlink() else ""


def obsolete(root: Path, kept: set[str], environment: str, keep: int) -> list[str]:
    """Return all but the releases to keep and what they use."""
    releases = sorted(
        listing(root / "releases"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for release in releases:
        if len(kept) < keep and not release.name.startswith("."):
            kept = kept | {release.name}
    used = {environment} | {environment_of(root / "releases" / name) for name in kept}
    gone = [path for path in releases if path.name not in kept]
    gone += [path for path in listing(root / "environments") if path.name not in used]
    return [str(path) for path in gone]


def listing(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing when there is none."""
    return list(folder.iterdir()) if folder.is_dir() else []


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    wanted: dict[str, Any] = module.params
    root = Path(wanted["root"])
    version, executable = interpreter(module, wanted["python"])
    minor = ".".join(version.split(".")[:2])
    digest = hashlib.sha256(f"{wanted['lock_hash']} {executable}".encode()).hexdigest()[:12]
    environment = f"{digest}-python{minor}"
    current = root / "current"
    used = Path(os.readlink(current)).name if current.is_symlink() else ""
    shipped = environment_of(root / "releases" / wanted["id"]) == environment
    installed = (root / "environments" / environment / ".complete").exists()
    _, states, _ = module.run_command(["systemctl", "is-active", *wanted["units"]])
    runs = states.split() == ["active"] * len(wanted["units"])
    module.exit_json(
        changed=False,
        current=used,  # release in use, empty when there is none
        python=version,  # of the interpreter, empty when there is none
        environment=environment,  # name of the environment that the release needs
        installed=installed,  # it is complete
        shipped=shipped and installed,  # the release is complete and uses it
        serves=used == wanted["id"] and shipped and installed and runs,
        obsolete=obsolete(root, {wanted["id"], used} - {""}, environment, wanted["keep"]),
    )


if __name__ == "__main__":
    main()
