"""Apply a file of ACL users and settings to a running Redis instance, without a restart."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

try:
    import redis
except ImportError:
    redis = None

DOCUMENTATION = """
module: redis_users
short_description: Apply a file of ACL users and settings to a running Redis instance
description:
  - Sets the users whose passwords differ from those of the file, or all of them with I(apply), and
    the settings that differ. Connected clients stay connected.
  - C(rejected) is true where the instance rejects the administrator, because it was started before
    the file had one. A restart helps.
  - I(state=query) changes nothing. C(accepted) lists which of I(passwords) the user can log in
    with.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "socket": {"type": "path", "required": True},
    "file": {"type": "path"},  # lines `user NAME RULE…` and `SETTING VALUE`
    "admin": {"type": "str"},
    "admin_password_file": {"type": "path", "no_log": False},  # a path, not a password
    "apply": {"type": "bool", "default": False},
    "state": {"type": "str", "choices": ["present", "query"], "default": "present"},
    "user": {"type": "str"},
    "passwords": {"type": "list", "elements": "str", "default": [], "no_log": True},
}


def parse(text: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the rules of each user in a file, and the settings."""
    lines = [shlex.split(line, comments=line.startswith("#")) for line in text.splitlines()]
    users = {words[1]: words[2:] for words in lines if words[:1] == ["user"]}
    settings = {words[0]: words[1] for words in lines if words and words[0] != "user"}
    return users, {name: in_bytes(value) for name, value in settings.items()}


def in_bytes(value: str) -> str:
    """Return a setting in the form of CONFIG GET, which has sizes in bytes."""
    return str(int(value[:-2]) << 20) if value.endswith("mb") else value


def connect(path: str, user: str, password: str) -> redis.Redis:
    """Return a client of the instance at a Unix socket."""
    return redis.Redis(
        unix_socket_path=path,
        username=user,
        password=password,
        socket_timeout=10,
        decode_responses=True,
    )


def is_rejection(error: Exception) -> bool:
    """Return whether an error means that the login or the command is not allowed."""
    rejections = (redis.AuthenticationError, redis.exceptions.NoPermissionError)
    return isinstance(error, rejections) or str(error).startswith("WRONGPASS")


def has_passwords(client: redis.Redis, name: str, rules: list[str]) -> bool:
    """Return whether a user exists in the running instance, with the passwords of its rules."""
    user = client.acl_getuser(name)
    return bool(user) and set(user["passwords"]) == {r[1:] for r in rules if r.startswith("#")}


def set_users(
    client: redis.Redis, users: dict[str, list[str]], apply: bool, check: bool
) -> list[str]:
    """Set the users that differ, or all, and return their names. Each user is set atomically."""
    names = [
        name for name, rules in users.items() if apply or not has_passwords(client, name, rules)
    ]
    for name in names if not check else []:
        client.execute_command("ACL SETUSER", name, "reset", *users[name])
    return names


def set_settings(client: redis.Redis, settings: dict[str, str], check: bool) -> list[str]:
    """Set the settings that differ, and return their names."""
    names = [name for name, value in settings.items() if client.config_get(name)[name] != value]
    for name in names if not check else []:
        client.config_set(name, settings[name])
    return names


def accepts(path: str, user: str, password: str) -> bool:
    """Return whether a user can log in with a password."""
    try:
        with connect(path, user, password) as client:
            return client.ping()
    except redis.RedisError as error:
        if is_rejection(error):
            return False
        raise


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec=OPTIONS,
        supports_check_mode=True,
        required_if=[
            ("state", "present", ["file", "admin", "admin_password_file"]),
            ("state", "query", ["user"]),
        ],
    )
    if redis is None:
        module.fail_json(msg=missing_required_lib("redis"))
    params = module.params
    path = params["socket"]
    try:
        if params["state"] == "query":
            accepted = [accepts(path, params["user"], password) for password in params["passwords"]]
            module.exit_json(changed=False, accepted=accepted)
        users, settings = parse(Path(params["file"]).read_text())
        password = Path(params["admin_password_file"]).read_text().strip()
        with connect(path, params["admin"], password) as client:
            names = set_users(client, users, params["apply"], module.check_mode)
            names += set_settings(client, settings, module.check_mode)
    except (OSError, redis.RedisError) as error:
        if isinstance(error, redis.RedisError) and is_rejection(error):
            module.exit_json(changed=False, rejected=True, applied=[])
        module.fail_json(msg=f"{path}: {error}")
    module.exit_json(changed=bool(names), rejected=False, applied=names)


if __name__ == "__main__":
    main()
