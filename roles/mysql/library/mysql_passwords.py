"""Have an account of MySQL or MariaDB accept one password, or two while they are rotated."""

from __future__ import annotations

import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: mysql_passwords
short_description: The passwords that an account accepts
description:
  - The account accepts I(password), and I(before) too unless that is empty; no other.
  - What is accepted before and after is accepted all the time. Connections are left alone.
  - With I(state=asked) nothing is changed. The answer says which of both are accepted, as was found
    by logging in with them.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "user": {"type": "str", "required": True},
    "host": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "before": {"type": "str", "default": "", "no_log": True},
    "socket": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "asked"], "default": "present"},
}
REFUSED = 1045  # access denied
Statement = tuple[str, tuple[str, ...]]


def mariadb_statements(
    account: tuple[str, str], wanted: list[str], accepted: dict[str, bool], more: bool
) -> list[Statement]:
    """Return what makes MariaDB accept the wanted passwords, and no others.

    `more`: the account has another way in than its first. MariaDB tries one after the other.
    """
    if all(accepted[password] for password in wanted) and more == (len(wanted) > 1):
        return []
    ways = " OR ".join(["mysql_native_password USING PASSWORD(%s)"] * len(wanted))
    return [(f"ALTER USER %s@%s IDENTIFIED VIA {ways}", (*account, *wanted))]


def mysql_statements(
    account: tuple[str, str], wanted: list[str], accepted: dict[str, bool], more: bool
) -> list[Statement]:
    """Return what makes MySQL accept the wanted passwords, and no others.

    `more`: the account has a second password. A new first one leaves it alone, or replaces it with
    what was the first; so the one of before is made the first, and then the second.
    """
    change = "ALTER USER %s@%s IDENTIFIED WITH caching_sha2_password BY %s"
    retain = f"{change} RETAIN CURRENT PASSWORD"
    if len(wanted) > 1:
        if all(accepted[password] for password in wanted):
            return []
        return [(retain, (*account, password)) for password in reversed(wanted)]
    if accepted[wanted[0]] and not more:
        return []
    # The one to stay may be the second, which is about to go.
    first = [(change, (*account, wanted[0]))]
    return first + ([("ALTER USER %s@%s DISCARD OLD PASSWORD", account)] if more else [])


class Server:
    """The server, asked as root over its socket."""

    def __init__(self, driver: Any, path: str) -> None:
        """Connect."""
        self.driver, self.path = driver, path
        connection = driver.connect(user="root", unix_socket=path, autocommit=True)
        self.cursor = connection.cursor()
        self.cursor.execute("SELECT VERSION()")
        self.mariadb = "mariadb" in self.cursor.fetchone()[0].lower()

    def has_more(self, account: tuple[str, str]) -> bool | None:
        """Say whether an account has a second password or way in; None: it does not exist."""
        table = "global_priv" if self.mariadb else "user"
        column = "Priv" if self.mariadb else "User_attributes"
        key = "auth_or" if self.mariadb else "additional_password"
        self.cursor.execute(
            f"SELECT {column} FROM mysql.{table} WHERE User = %s AND Host = %s", account
        )
        row = self.cursor.fetchone()
        return None if row is None else bool(json.loads(row[0] or "{}").get(key))

    def accepts(self, user: str, password: str) -> bool:
        """Log in, and say whether that was let in."""
        try:
            self.driver.connect(user=user, password=password, unix_socket=self.path).close()
        except self.driver.err.OperationalError as error:
            if error.args[0] == REFUSED:
                return False
            raise
        return True


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    asked = module.params
    try:
        import pymysql
    except ImportError:
        module.fail_json(msg="The host has no PyMySQL: install python3-pymysql")
    account = (asked["user"], asked["host"])
    wanted = [password for password in (asked["password"], asked["before"]) if password]
    try:
        server = Server(pymysql, asked["socket"])
        more = server.has_more(account)
        if more is None and module.check_mode:
            module.exit_json(changed=True, accepted=[])
        if more is None:
            module.fail_json(msg=f"The server has no account {asked['user']}@{asked['host']}")
        accepted = {password: server.accepts(asked["user"], password) for password in wanted}
        statements: list[Statement] = []
        if asked["state"] == "present":
            rules = mariadb_statements if server.mariadb else mysql_statements
            statements = rules(account, list(dict.fromkeys(wanted)), accepted, bool(more))
        for statement, values in [] if module.check_mode else statements:
            server.cursor.execute(statement, values)
    except pymysql.err.MySQLError as error:
        # A statement has passwords, and the server repeats what is near a mistake.
        number = error.args[0] if error.args else "unknown"
        module.fail_json(msg=f"{asked['user']}@{asked['host']}: the server's error is {number}")
    module.exit_json(changed=bool(statements), accepted=[accepted[one] for one in wanted])


if __name__ == "__main__":
    main()
