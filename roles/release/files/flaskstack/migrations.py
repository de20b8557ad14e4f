"""Name the migrations in which two releases of a host differ."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: release_migrations
short_description: Name the migrations in which two releases differ
description:
  - Compares the files of the folders that hold migrations. Changes nothing.
  - Those are the folders called versions beside an env.py (Alembic), and those called migrations.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "from": {"type": "path", "required": True},  # folder of the release that serves
    "to": {"type": "path", "required": True},  # folder of the release to go back to
    "paths": {"type": "list", "elements": "str", "default": []},  # folders instead of these
}
SUFFIXES = (".py", ".sql")


def holds_migrations(folder: Path) -> bool:
    """Say whether a folder is one that migrations are usually in."""
    if folder.name == "versions":
        return (folder.parent / "env.py").is_file()
    return folder.name == "migrations" and not (folder / "versions").is_dir()


def migrations(release: Path, paths: list[str]) -> dict[str, str]:
    """Return the migrations of a release, by path, with the hash of what they hold."""
    own = [path for path in release.glob("*") if path.name != ".venv"]
    folders = [release / path for path in paths] or [
        folder
        for path in own
        for folder in (path, *path.rglob("*"))
        if folder.is_dir() and holds_migrations(folder)
    ]
    return {
        path.relative_to(release).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and path.is_file()
    }


def difference(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Return what the release to go back to does not have, or has otherwise."""
    return sorted(path for path, content in old.items() if new.get(path) != content)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    wanted: dict[str, Any] = module.params
    served, target = (migrations(Path(wanted[key]), wanted["paths"]) for key in ("from", "to"))
    module.exit_json(changed=False, files=difference(served, target))


if __name__ == "__main__":
    main()
