"""Apply changed settings to a running MySQL or MariaDB server, without a restart where possible."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: mysql_live_settings
short_description: Apply the option file to the running server
description:
  - Sets what differs between I(previous), which is then removed, and I(path). The result is
    C(changed) if some settings, listed in C(restart), need a restart.
  - With I(at_least), lower numbers in the file are raised first, which makes it C(changed).
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "previous": {"type": "path", "default": ""},
    "at_least": {"type": "dict", "default": {}},
    "socket": {"type": "path", "required": True},
}
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
NUMBER = re.compile(r"(\d+)([KMG]?)", re.IGNORECASE)


def read(text: str) -> dict[str, str]:
    """Return the settings of [mysqld]; the last value of a name wins."""
    found, section = {}, ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line
        elif line and line[0] not in "#;" and section == "[mysqld]":
            name, _, value = line.partition("=")
            name = name.strip().lower().replace("-", "_").removeprefix("loose_")
            found[name] = value.strip().strip("\"'")
    return found


def number(value: str) -> int | float | None:
    """Return a number, also with a unit such as 64M; None for other text."""
    if found := NUMBER.fullmatch(value):
        return int(found[1]) * UNITS[found[2].upper()]
    try:
        return float(value)
    except ValueError:
        return None


def raised(text: str, at_least: dict[str, Any]) -> str:
    """Return the text of an option file with its numbers raised to those of `at_least`."""
    for name, value in at_least.items():
        present, minimum = number(read(text).get(name, "")), number(str(value))
        if present is not None and minimum is not None and present < minimum:
            line = re.compile(rf"^{name.replace('_', '[-_]')}\s*=.*$", re.MULTILINE | re.IGNORECASE)
            text = line.sub(f"{name} = {value}", text)
    return text


def apply(driver: Any, path: str, old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Apply the settings that differ, and return the names of those that need a restart."""
    restart = sorted(old.keys() - new.keys())  # their defaults are unknown
    changed = {name: value for name, value in new.items() if old.get(name) != value}
    try:
        connection = driver.connect(user="root", unix_socket=path, autocommit=True)
    except driver.err.OperationalError:  # not running
        return sorted({*restart, *changed})
    with connection, connection.cursor() as cursor:
        for name, value in changed.items():
            found = number(value)
            try:
                cursor.execute(f"SET GLOBAL `{name}` = %s", (value if found is None else found,))
                # The server may have truncated the value.
                done = not cursor.execute("SHOW WARNINGS")
            except driver.err.MySQLError:
                done = False
            if not done:
                restart.append(name)
    return sorted(restart)


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    params = module.params
    path, previous = Path(params["path"]), params["previous"]
    if not params["at_least"] and not previous:  # the first file, or check mode
        module.exit_json(changed=True, restart=["all"])
    if not path.exists():
        module.exit_json(changed=False, restart=[])
    try:
        import pymysql
    except ImportError:
        module.fail_json(msg="The host has no PyMySQL: install python3-pymysql")
    text = path.read_text()
    new = raised(text, params["at_least"])
    if new != text and not module.check_mode:
        partial = Path(f"{path}.partial")
        partial.write_text(new)
        partial.chmod(0o644)
        module.atomic_move(str(partial), str(path))
    restart: list[str] = []
    if not module.check_mode:
        old = read(Path(previous).read_text() if previous else text)
        restart = apply(pymysql, params["socket"], old, read(new))
        if previous:
            Path(previous).unlink()
    changed = new != text if params["at_least"] else bool(restart)
    module.exit_json(changed=changed, restart=restart)


if __name__ == "__main__":
    main()
