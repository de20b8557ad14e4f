"""Compare an inventory's secrets with the digests that a host keeps of its secrets."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: secret_digests
short_description: Compare secrets with those that a host was set up with
description:
  - C(query) returns the C(problems) of I(secrets) on this host. C(present) records that the host is
    set up with them, as digests in C(<folder>/<app>.json), readable by root only.
  - I(secrets) is JSON, by the secret's name C(value), C(previous) (or empty), C(strict) (a new
    value needs a rotation or I(renew)) and C(revoked) (the previous value is no longer valid).
  - With I(rotated), former values of all secrets are revoked, not only of the strict ones.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "app": {"type": "str", "required": True},
    "folder": {"type": "path", "required": True},
    "secrets": {"type": "str", "required": True, "no_log": True},
    "state": {"type": "str", "choices": ["query", "present"], "default": "query"},
    "renew": {"type": "bool", "default": False},
    "rotated": {"type": "bool", "default": False},
}
KEEP = 20  # revoked values per secret


class Digests:
    """The digests of an app's secrets on this host."""

    def __init__(self, folder: Path, app: str) -> None:
        """Read the file, which may be missing."""
        self.path = folder / f"{app}.json"
        try:
            self.read = json.loads(self.path.read_text())
        except FileNotFoundError:
            self.read = {"salt": os.urandom(16).hex(), "secrets": {}}
        self.salt: str = self.read["salt"]
        self.secrets: dict[str, dict[str, Any]] = self.read["secrets"]

    def digest(self, value: str) -> str:
        """Return the salted digest of a secret; empty for an empty secret.

        The hash is slow, because manually chosen secrets may be weak.
        """
        salt = bytes.fromhex(self.salt)
        return hashlib.scrypt(value.encode(), salt=salt, n=4096, r=8, p=1).hex() if value else ""

    def problem(self, name: str, value: str, previous: str, strict: bool) -> str:
        """Return the problem of a secret on this host; empty if it has none.

        - `other`: the host was set up with another value.
        - `old`: a rotation has replaced this value.
        - `previous`: the previous value is missing, but still valid.
        - `revoked`: the previous value is given, but revoked.
        - `changed`: the value changed, which is allowed for this secret.
        """
        known = self.secrets.get(name)
        if not known:
            return ""
        now, then = self.digest(value), self.digest(previous)
        if now == known["present"]:
            if then in known.get("retired", []):
                return "revoked"
            return "previous" if strict and known.get("previous", then) not in (then, "") else ""
        if now == known.get("previous") or now in known.get("retired", []):
            return "old"
        if not strict:
            return "changed"
        return "" if then == known["present"] else "other"

    def updated(self, secrets: dict[str, dict[str, Any]], rotated: bool) -> dict[str, Any]:
        """Return the digests of a host that is set up with these secrets."""
        known = dict(self.secrets)
        for name, secret in secrets.items():
            former = self.secrets.get(name, {})
            now, then = self.digest(secret["value"]), self.digest(secret["previous"])
            then = "" if secret["revoked"] or then == now else then
            replaced = [former.get("previous"), former.get("present")]
            replaced = replaced if secret["strict"] or rotated else []
            retired = dict.fromkeys([*former.get("retired", []), *replaced])
            retired = [digest for digest in retired if digest and digest not in (now, then)]
            known[name] = {"present": now, "previous": then, "retired": retired[-KEEP:]}
        return known

    def write(self, secrets: dict[str, dict[str, Any]]) -> None:
        """Write the file atomically, readable by root only."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.parent.chmod(0o700)
        partial = self.path.with_suffix(".new")
        partial.unlink(missing_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"salt": self.salt, "secrets": secrets}, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    params = module.params
    secrets = {
        name: secret for name, secret in json.loads(params["secrets"]).items() if secret["value"]
    }
    digests = Digests(Path(params["folder"]), params["app"])
    found = {
        name: digests.problem(name, secret["value"], secret["previous"], secret["strict"])
        for name, secret in secrets.items()
    }
    problems = {name: problem for name, problem in found.items() if problem}
    updated = digests.updated(secrets, params["rotated"])
    differs = not digests.path.exists() or updated != digests.secrets
    if params["state"] == "present" and differs and not module.check_mode:
        digests.write(updated)
    module.exit_json(
        changed=differs and params["state"] == "present",
        differs=differs,
        known=bool(digests.secrets),
        problems={} if params["renew"] else problems,
    )


if __name__ == "__main__":
    main()
