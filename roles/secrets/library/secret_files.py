"""Rotate the secrets that an inventory keeps in files, and never lose one that is accepted."""

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
short_description: Rotate the secrets that an inventory keeps in files
description:
  - A secret is in C(<name>.txt), the previous one in C(<name>.previous.txt). Which are being
    rotated is in C(rotation.json), with digests of what they were, so that a rotation that was
    cut goes on where it ended.
  - C(asked) changes nothing; C(kept) keeps a copy of each as that of before where there is none;
    C(dropped) takes such copies back; C(renewed) makes new ones; C(finished) forgets those of
    before in I(retired), and that a rotation was under way.
  - Answers hold digests and no secrets.
author: Flaskstack
"""
STATES = ["asked", "kept", "dropped", "renewed", "finished"]
OPTIONS: dict[str, Any] = {
    "folder": {"type": "path", "required": True},
    "state": {"type": "str", "choices": STATES, "required": True},
    "names": {"type": "list", "elements": "str", "default": []},
    "retired": {"type": "list", "elements": "str", "default": []},
}
SIGNS = string.ascii_letters + string.digits  # nothing that a URL or a file would need quoted
LENGTH = 40


class Folder:
    """The folder of an inventory's secrets."""

    def __init__(self, path: str | Path) -> None:
        """Look at a folder; it need not be there."""
        self.path = Path(path)
        self.note = self.path / "rotation.json"

    def present(self, name: str) -> Path:
        """Return the file of a secret."""
        return self.path / f"{name}.txt"

    def previous(self, name: str) -> Path:
        """Return the file of what a secret was before."""
        return self.path / f"{name}.previous.txt"

    def under_way(self) -> dict[str, str]:
        """Return what is being rotated, each with the digest of what it was when that began."""
        try:
            return json.loads(self.note.read_text())["names"]
        except FileNotFoundError:
            return {}

    def asked(self) -> dict[str, Any]:
        """Return the digests of all secrets, and which are being rotated."""
        names = sorted(
            path.name.removesuffix(".txt")
            for path in self.path.glob("*.txt")
            if not path.name.endswith(".previous.txt")
        )
        return {
            "present": {name: digest(self.present(name)) for name in names},
            "previous": {name: digest(self.previous(name)) for name in names},
            "under_way": sorted(self.under_way()),
        }

    def keep(self, names: list[str]) -> bool:
        """Have a secret of before for each name, the present one where there is no other."""
        missing = [name for name in names if not self.previous(name).exists()]
        for name in missing:
            write(self.previous(name), self.present(name).read_text())
        return bool(missing)

    def drop(self, names: list[str]) -> bool:
        """Take copies back, which are only ever of what is present."""
        same = [name for name in names if digest(self.previous(name)) == digest(self.present(name))]
        for name in same:
            self.previous(name).unlink()
        return bool(same)

    def renew(self, names: list[str]) -> bool:
        """Begin, or go on where it was cut: each secret becomes that of before, then a new one."""
        old = self.under_way()
        if not old and not names:
            return False
        if not old:
            old = {name: digest(self.present(name)) for name in names}
            write(self.note, json.dumps({"names": old}) + "\n")
        stale = [name for name in old if digest(self.present(name)) == old[name]]
        for name in stale:
            write(self.previous(name), self.present(name).read_text())
            write(self.present(name), new_secret() + "\n")
        return bool(stale)

    def finish(self, retired: list[str]) -> bool:
        """Forget secrets that nobody accepts any more, and last that there was a rotation."""
        gone = [path for name in retired if (path := self.previous(name)).exists()]
        gone += [self.note] if self.note.exists() else []
        for path in gone:
            path.unlink()
        return bool(gone)


def new_secret() -> str:
    """Return a new secret, of 238 bits."""
    return "".join(secrets.choice(SIGNS) for _ in range(LENGTH))


def digest(path: Path) -> str:
    """Return the digest of a secret; empty where there is none."""
    try:
        return hashlib.sha256(path.read_text().strip().encode()).hexdigest()
    except FileNotFoundError:
        return ""


def write(path: Path, text: str) -> None:
    """Write a file that only its owner reads: whole and on the disk, or not at all."""
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
    asked = module.params
    folder = Folder(asked["folder"])
    changed = False
    if not module.check_mode:
        if asked["state"] == "kept":
            changed = folder.keep(asked["names"])
        elif asked["state"] == "dropped":
            changed = folder.drop(asked["names"])
        elif asked["state"] == "renewed":
            changed = folder.renew(asked["names"])
        elif asked["state"] == "finished":
            changed = folder.finish(asked["retired"])
    module.exit_json(changed=changed, **folder.asked())


if __name__ == "__main__":
    main()
