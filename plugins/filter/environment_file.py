r"""Write environment files that systemd and a shell read alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# What a backslash escapes inside double quotes, in systemd's EnvironmentFile= and in sh alike.
_SPECIAL = re.compile(r'([\\"$`])')
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def environment_file(variables: Mapping[str, Any]) -> str:
    """Return lines `NAME="value"`; a newline or a name that no shell accepts is an error.

    Messages name the variable and never its value, which may be a secret.
    """
    return "\n".join(f'{_name(name)}="{_value(name, value)}"' for name, value in variables.items())


def not_environment(variables: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of those items `{key, value}` that no environment file can hold."""
    return [str(item["key"]) for item in variables if not _fits(item["key"], item["value"])]


def _fits(name: Any, value: Any) -> bool:
    try:
        environment_file({name: value})
    except AnsibleFilterError:
        return False
    return True


def _name(name: Any) -> str:
    if not _NAME.match(str(name)):
        raise AnsibleFilterError(
            f"{name!r} cannot name an environment variable: letters, digits and _, no digit first"
        )
    return str(name)


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    elif value is None:
        value = ""
    elif not isinstance(value, str | int | float):
        raise AnsibleFilterError(
            f"environment variable {name} is a {type(value).__name__}: give it one string"
        )
    if _CONTROL.search(str(value)):
        raise AnsibleFilterError(
            f"environment variable {name} holds a newline or another control character"
        )
    return _SPECIAL.sub(r"\\\1", str(value))


class FilterModule:
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {"environment_file": environment_file, "not_environment": not_environment}
