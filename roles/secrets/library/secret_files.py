"""Rotate the secrets in an inventory's files, and keep every value that a server accepts."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import string
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: secret_files
short_description: Rotate the secrets in an inventory's files
description:
  - A secret is in C(<name>.txt), its previous value in C(<name>.previous.txt). During a rotation
    C(rotation.json) has the names with digests of their former values, so that an interrupted
    rotation continues where it stopped.
  - C(query) changes nothing; C(backup) copies each secret to its previous value if there is none;
    C(restore) removes such copies; C(rotate) generates new values; C(cleanup) removes the previous
    values of I(revoked), and C(rotation.json).
  - Results contain digests and no secrets.
author: Flaskstack
"""
STATES = ["query", "backup", "restore", "rotate", "cleanup"]
OPTIONS: dict[str, Any] = {
    "folder": {"type": "path", "required": True},
    "state": {"type": "str", "choices": STATES, "required": True},
    "names": {"type": "list", "elements": "str", "default": []},
    "revoked": {"type": "list", "elements": "str", "default": []},
}
ALPHABET = string.ascii_letters + string.digits  # without characters that URLs or files quote
LENGTH = 40


class Folder:
    """The folder of an inventory's secrets."""

    def __init__(self, path: str | Path) -> None:
        """Refer to a folder, which may be missing."""
        self.path = Path(path)
        self.state_file = self.path / "rotation.json"

    def present(self, name: str) -> Path:
        """Return the file of a secret."""
        return self.path / f"{name}.txt"

    def previous(self, name: str) -> Path:
        """Return the file of the previous value of a secret."""
        return self.path / f"{name}.previous.txt"

    def in_progress(self) -> dict[str, str]:
        """Return the secrets in rotation, with the digests of their former values."""
        try:
            return json.loads(self.state_file.read_text())["names"]
        except FileNotFoundError:
            return {}

    def query(self) -> dict[str, Any]:
        """Return the digests of all secrets, and the names of those in rotation."""
        names = sorted(
            path.name.removesuffix(".txt")
            for path in self.path.glob("*.txt")
            if not path.name.endswith(".previous.txt")
        )
        return {
            "present": {name: digest(self.present(name)) for name in names},
            "previous": {name: digest(self.previous(name)) for name in names},
            "in_progress": sorted(self.in_progress()),
        }

    def backup(self, names: list[str]) -> bool:
        """Copy each secret without a previous value to its previous value."""
        missing = [name for name in names if not self.previous(name).exists()]
        for name in missing:
            write(self.previous(name), self.present(name).read_text())
        return bool(missing)

    def restore(self, names: list[str]) -> bool:
        """Remove previous values that are copies of the present ones."""
        same = [name for name in names if digest(self.previous(name)) == digest(self.present(name))]
        for name in same:
            self.previous(name).unlink()
        return bool(same)

    def rotate(self, names: list[str]) -> bool:
        """Start or continue a rotation: copy each secret to its previous value, then replace it."""
        old = self.in_progress()
        if not old and not names:
            return False
        if not old:
            old = {name: digest(self.present(name)) for name in names}
            write(self.state_file, json.dumps({"names": old}) + "\n")
        stale = [name for name in old if digest(self.present(name)) == old[name]]
        for name in stale:
            write(self.previous(name), self.present(name).read_text())
            write(self.present(name), new_secret() + "\n")
        return bool(stale)

    def cleanup(self, revoked: list[str]) -> bool:
        """Remove revoked previous values, and the state file last."""
        gone = [path for name in revoked if (path := self.previous(name)).exists()]
        gone += [self.state_file] if self.state_file.exists() else []
        for path in gone:
            path.unlink()
        return bool(gone)


def new_secret() -> str:
    """Return a new secret of 238 bits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


def digest(path: Path) -> str:
    """Return the digest of a secret; empty for a missing file."""
    try:
        return hashlib.sha256(path.read_text().strip().encode()).hexdigest()
    except FileNotFoundError:
        return ""


def write(path: Path, text: str) -> None:
    """Write a file atomically, readable by its owner only, and sync it to disk."""
    partial = path.with_name(f".{path.name}.new")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    state = module.params["state"]
    folder = Folder(module.params["folder"])
    names = module.params["revoked" if state == "cleanup" else "names"]
    changed = False
    if state != "query" and not module.check_mode:
        changed = getattr(folder, state)(names)
    module.exit_json(changed=changed, **folder.query())


if __name__ == "__main__":
    main()
