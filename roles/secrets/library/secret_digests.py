"""Compare an inventory's secrets with digests of those that a host was set up with."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: secret_digests
short_description: Know which secrets a host was set up with
description:
  - C(query) says for each of I(secrets) what speaks against using it on this host. C(present)
    writes down that the host is set up with them. Digests are in C(<folder>/<app>.json), for root
    alone.
  - A host without that file, which an older version set up, is asked for its app's environment.
  - I(secrets) is JSON, by the secret's name C(value), C(previous) (empty, or accepted too),
    C(strict) (a new value needs a rotation or I(renew)) and C(variable) of the environment (or
    empty).
  - I(retired) names those whose C(previous) is accepted no longer. I(rotated) says that a former
    value of any secret is retired, not of the strict ones alone.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "app": {"type": "str", "required": True},
    "folder": {"type": "path", "required": True},
    "secrets": {"type": "str", "required": True, "no_log": True},
    "state": {"type": "str", "choices": ["query", "present"], "default": "query"},
    "renew": {"type": "bool", "default": False},
    "rotated": {"type": "bool", "default": False},
    "retired": {"type": "list", "elements": "str", "default": []},
}
ETC = Path("/etc")
KEEP = 20  # retired values of a secret
LINE = re.compile(r'^(\w+)="(.*)"$', re.MULTILINE)
PASSWORD = re.compile(r"^[a-z0-9+]+://[^:@/]*:([^@/]*)@")


class Digests:
    """What a host knows of the secrets of an app."""

    def __init__(self, folder: Path, app: str) -> None:
        """Read what the host has."""
        self.path = folder / f"{app}.json"
        try:
            self.read = json.loads(self.path.read_text())
        except FileNotFoundError:
            self.read = {"salt": os.urandom(16).hex(), "secrets": {}}
        self.salt: str = self.read["salt"]
        # Files of earlier versions name the previous digest "before".
        self.secrets: dict[str, dict[str, Any]] = {
            name: {"previous" if key == "before" else key: value for key, value in known.items()}
            for name, known in self.read["secrets"].items()
        }

    def digest(self, value: str) -> str:
        """Return the salted digest of a secret; empty where there is none.

        Generated secrets have 238 bits, those that people choose may have few.
        """
        salt = bytes.fromhex(self.salt)
        return hashlib.scrypt(value.encode(), salt=salt, n=4096, r=8, p=1).hex() if value else ""

    def adopt(self, secrets: dict[str, dict[str, Any]], environment: dict[str, str]) -> None:
        """Take what the app has in its environment for what the host was set up with."""
        if self.path.exists():
            return
        for name, secret in secrets.items():
            value = environment.get(secret["variable"], "")
            if secret["variable"].endswith("_URL") and secret["variable"] != name:
                found = PASSWORD.match(value)
                value = found[1] if found else ""
            if value:
                self.secrets[name] = {"present": self.digest(value)}

    def problem(self, name: str, value: str, previous: str, strict: bool) -> str:
        """Return what speaks against using a secret here; empty if nothing does.

        - `other`: the host was set up with another one.
        - `old`: a rotation has replaced it.
        - `previous`: what it has replaced is accepted still, and is not given.
        - `refused`: what it has replaced is given, and accepted no longer.
        - `changed`: it is another one, which is the user's to decide.
        """
        known = self.secrets.get(name)
        if not known:
            return ""
        now, then = self.digest(value), self.digest(previous)
        if now == known["present"]:
            if then in known.get("retired", []):
                return "refused"
            return "previous" if strict and known.get("previous", then) not in (then, "") else ""
        if now == known.get("previous") or now in known.get("retired", []):
            return "old"
        if not strict:
            return "changed"
        return "" if then == known["present"] else "other"

    def wanted(
        self, secrets: dict[str, dict[str, Any]], retired: list[str], rotated: bool
    ) -> dict[str, dict[str, Any]]:
        """Return what the host knows once it is set up with these secrets."""
        known = dict(self.secrets)
        for name, secret in secrets.items():
            former = self.secrets.get(name, {})
            now, then = self.digest(secret["value"]), self.digest(secret["previous"])
            then = "" if name in retired or then == now else then
            gone = [former.get("previous"), former.get("present")]
            gone = gone if secret["strict"] or rotated else []
            gone = [*former.get("retired", []), *gone]
            gone = [one for one in dict.fromkeys(gone) if one and one not in (now, then)]
            known[name] = {"present": now, "previous": then, "retired": gone[-KEEP:]}
        return known

    def write(self, secrets: dict[str, dict[str, Any]]) -> None:
        """Write the file, which root alone reads: whole, or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.parent.chmod(0o700)
        partial = self.path.with_suffix(".new")
        partial.unlink(missing_ok=True)
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"salt": self.salt, "secrets": secrets}, file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)


def environment_of(app: str) -> dict[str, str]:
    """Return the environment that an app has on this host; nothing where it is not set up."""
    for path in (ETC / app / "current/environment", ETC / app / "environment"):
        if path.exists():
            found = LINE.findall(path.read_text())
            return {name: re.sub(r"\\(.)", r"\1", value) for name, value in found}
    return {}


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    asked = module.params
    secrets = {
        name: secret for name, secret in json.loads(asked["secrets"]).items() if secret["value"]
    }
    digests = Digests(Path(asked["folder"]), asked["app"])
    digests.adopt(secrets, environment_of(asked["app"]))
    found = {
        name: digests.problem(name, secret["value"], secret["previous"], secret["strict"])
        for name, secret in secrets.items()
    }
    problems = {name: problem for name, problem in found.items() if problem}
    wanted = digests.wanted(secrets, asked["retired"], asked["rotated"])
    differs = not digests.path.exists() or wanted != digests.read["secrets"]
    if asked["state"] == "present" and differs and not module.check_mode:
        digests.write(wanted)
    module.exit_json(
        changed=differs and asked["state"] == "present",
        differs=differs,
        known=bool(digests.secrets),
        problems={} if asked["renew"] else problems,
    )


if __name__ == "__main__":
    main()
