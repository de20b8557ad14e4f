"""Have a running Redis take over its file of users and settings, without a restart."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path
from typing import Any, BinaryIO

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: redis_users
short_description: Have a running Redis take over its file of users and settings
description:
  - Sets the users whose passwords differ from those of the file, or all of them with I(apply).
    Clients that are logged in stay so. Sets the settings that differ.
  - Where the operator is refused, since Redis began before it was in the file, the answer is
    C(refused), and a restart helps.
  - With I(state=asked) nothing is changed. The answer says which of I(passwords) a user is let in
    with, as was found by logging in.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "socket": {"type": "path", "required": True},
    "file": {"type": "path"},  # lines `user NAME RULE…` and `SETTING VALUE`, as Redis answers them
    "operator": {"type": "str"},
    "operator_password_file": {"type": "path", "no_log": False},  # where it is, not what it says
    "apply": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "asked"], "default": "present"},
    "user": {"type": "str"},
    "passwords": {"type": "list", "elements": "str", "default": [], "no_log": True},
}
REFUSED = ("WRONGPASS", "NOPERM", "NOAUTH")


class RefusedError(Exception):
    """Redis does not let this user in, or do this."""


class ReplyError(Exception):
    """Redis answers that it cannot do what it was asked."""


class Redis:
    """A connection to a Unix socket, in Redis' own protocol."""

    def __init__(self, path: str, seconds: float = 10) -> None:
        """Connect."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(seconds)
        self.socket.connect(path)
        self.answers: BinaryIO = self.socket.makefile("rb")

    def __call__(self, *words: str) -> Any:
        """Send a command and return the answer."""
        texts = [word.encode() for word in words]
        parts = [b"*%d\r\n" % len(texts), *(b"$%d\r\n%s\r\n" % (len(text), text) for text in texts)]
        self.socket.sendall(b"".join(parts))
        return answer(self.answers)

    def close(self) -> None:
        """Close the connection."""
        self.answers.close()
        self.socket.close()


def answer(file: BinaryIO) -> Any:
    """Read one answer."""
    line = file.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("Redis closed the connection")
    kind, text = line[:1], line[1:-2].decode()
    if kind == b"-":
        raise (RefusedError if text.startswith(REFUSED) else ReplyError)(text)
    if kind == b"*":
        return [answer(file) for _ in range(int(text))]
    if kind == b"$":
        return file.read(int(text) + 2)[:-2].decode() if int(text) >= 0 else None
    return int(text) if kind == b":" else text


def users_of(text: str) -> dict[str, list[str]]:
    """Return the rules of each user in a file."""
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("user ")]
    return {words[1]: words[2:] for words in lines}


def hashes(rules: list[str]) -> set[str]:
    """Return the passwords among rules, as Redis keeps them."""
    return {rule[1:] for rule in rules if rule.startswith("#")}


def running_hashes(redis: Redis, name: str) -> set[str] | None:
    """Return the passwords of a user of the running Redis; None when it has no such user."""
    said = redis("ACL", "GETUSER", name)
    if not said:
        return None
    return set(dict(zip(said[::2], said[1::2], strict=True))["passwords"])


def take_over(redis: Redis, users: dict[str, list[str]], every: bool, check: bool) -> list[str]:
    """Set users, and return the names of those that were set. Each changes in one step."""
    stale = [name for name, rules in users.items() if running_hashes(redis, name) != hashes(rules)]
    names = list(users) if every else stale
    for name in names:
        if not check:
            redis("ACL", "SETUSER", name, "reset", *users[name])
    return names


def settings_of(text: str) -> dict[str, str]:
    """Return the settings in a file, by name."""
    lines = [line.split() for line in text.splitlines() if line[:1] not in ("", "#")]
    return {words[0]: words[1] for words in lines if words[0] != "user"}


def set_settings(redis: Redis, settings: dict[str, str], check: bool) -> list[str]:
    """Set the settings that differ, and return their names."""
    stale = [name for name, value in settings.items() if redis("CONFIG", "GET", name)[1] != value]
    for name in stale:
        if not check:
            redis("CONFIG", "SET", name, settings[name])
    return stale


def lets_in(path: str, user: str, password: str) -> bool:
    """Log in, and say whether that was let in."""
    redis = Redis(path)
    try:
        redis("AUTH", user, password)
    except RefusedError:
        return False
    finally:
        redis.close()
    return True


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec=OPTIONS,
        supports_check_mode=True,
        required_if=[
            ("state", "present", ["file", "operator", "operator_password_file"]),
            ("state", "asked", ["user"]),
        ],
    )
    asked = module.params
    try:
        if asked["state"] == "asked":
            let_in = [lets_in(asked["socket"], asked["user"], word) for word in asked["passwords"]]
            module.exit_json(changed=False, accepted=let_in)
        redis = Redis(asked["socket"])
        redis("AUTH", asked["operator"], Path(asked["operator_password_file"]).read_text().strip())
        text = Path(asked["file"]).read_text()
        names = take_over(redis, users_of(text), asked["apply"], module.check_mode)
        settings = set_settings(redis, settings_of(text), module.check_mode)
    except RefusedError:
        module.exit_json(changed=False, refused=True, users=[], settings=[])
    except (OSError, ReplyError) as error:
        module.fail_json(msg=f"{asked['socket']}: {error}")
    changed = bool(names or settings)
    module.exit_json(changed=changed, refused=False, users=names, settings=settings)


if __name__ == "__main__":
    main()
