r"""Quote values for files, with one function for each format.

A value that a format cannot hold is an error. The message never shows it: it may be a secret.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Characters that a backslash escapes in double quotes, in EnvironmentFile= and in sh.
_SPECIAL = re.compile(r'([\\"$`])')
_BARE = re.compile(r"[\w@%+=:,./$-]+", re.ASCII)
# In a command, systemd replaces `$$` with a dollar and `$NAME` with the variable's value.
_DOLLAR = re.compile(r"\$\$|\$\{[A-Za-z_]\w*\}|\$(?=[A-Za-z_])|(\$)")


def text(value: Any, what: str = "a value") -> str:
    """Return a value as one line of text. Booleans are in lower case, and None is empty."""
    if isinstance(value, bool):
        value = str(value).lower()
    elif value is None:
        value = ""
    elif not isinstance(value, str | int | float):
        raise AnsibleFilterError(f"{what} is a {type(value).__name__}: give it one string")
    line = str(value)
    if _CONTROL.search(line):
        raise AnsibleFilterError(f"{what} holds a newline or another control character")
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise AnsibleFilterError(f"{what} holds half of a character (a surrogate)") from error
    return line


# systemd.


def environment_file(variables: Mapping[str, Any]) -> str:
    """Return lines `NAME="value"` that systemd and a shell read the same way."""
    return "\n".join(
        f'{name}="' + _SPECIAL.sub(r"\\\1", text(value, f"environment variable {name}")) + '"'
        for name, value in _named(variables)
    )


def systemd_environment(variables: Mapping[str, Any]) -> str:
    """Return `Environment=` lines for a unit."""
    return "\n".join(
        f"Environment={_systemd_quoted(f'{name}=' + text(value, f'environment variable {name}'))}"
        for name, value in _named(variables)
    )


def systemd_command(command: Any) -> str:
    """Return a shell command as the words of `ExecStart=`.

    systemd replaces a word `$NAME`, and `${NAME}` anywhere. `$$` is one dollar.
    """
    words = shlex.split(text(command, "a command"))
    return " ".join(_systemd_word(_DOLLAR.sub(_dollar, word)) for word in words)


def _systemd_word(word: str) -> str:
    return word.replace("%", "%%") if _BARE.fullmatch(word) else _systemd_quoted(word)


def _dollar(found: re.Match[str]) -> str:
    return "$$" if found[1] else found[0]


def _systemd_quoted(line: str) -> str:
    escaped = line.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return '"' + escaped.replace("%", "%%") + '"'


def _named(variables: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in variables.items():
        if not _NAME.match(str(name)):
            raise AnsibleFilterError(
                f"{name!r} cannot name an environment variable: letters, digits and _, "
                "no digit first"
            )
        yield str(name), value


# Other formats.


def nginx_string(value: Any) -> str:
    """Return an nginx string. A dollar is an error: it would begin a variable."""
    line = text(value)
    if "$" in line:
        raise AnsibleFilterError("a value contains a $, which begins a variable in nginx")
    return '"' + line.replace("\\", "\\\\").replace('"', '\\"') + '"'


def mysql_option(value: Any, name: str = "") -> str:
    """Return a line `name = value` of a MySQL option file, or a bare name for None."""
    if value is None:
        return name
    line = ("ON" if value else "OFF") if isinstance(value, bool) else text(value, name)
    if line[:1] in ("'", '"') and line[-1:] == line[:1] and len(line) > 1:
        line = line[1:-1]
    if not _BARE.fullmatch(line):
        escaped = line.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
        line = f'"{escaped}"'
    return f"{name} = {line}"


def python_literal(value: Any) -> str:
    """Return a value as a Python literal."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k!r}: {python_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(python_literal, value)) + "]"
    return ascii(value)


# Values that cannot be written.


def _not_fitting(write: Callable[[Any], Any], value: Any) -> bool:
    try:
        write(value)
    except (AnsibleFilterError, ValueError):
        return True
    return False


def not_environment(variables: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the keys of the items `{key, value}` that no environment file can hold."""
    return [
        str(item["key"])
        for item in variables
        if _not_fitting(environment_file, {item["key"]: item["value"]})
    ]


def not_commands(processes: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of the processes with a command that is not one line of words."""
    return [str(process["name"]) for process in processes if not _words(process["command"])]


def _words(command: Any) -> str:
    line = str(command).strip()
    fits = line.isprintable() and not _not_fitting(systemd_command, line)
    return systemd_command(line) if fits else ""


def not_lines(values: Mapping[str, Any]) -> list[str]:
    """Return the names of values that are not one line of text."""
    return [name for name, value in values.items() if _not_fitting(text, value)]


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "environment_file": environment_file,
            "mysql_option": mysql_option,
            "nginx_string": nginx_string,
            "not_lines": not_lines,
            "python_literal": python_literal,
            "systemd_command": systemd_command,
            "systemd_environment": systemd_environment,
        }
