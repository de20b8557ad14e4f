"""Have an account of MySQL or MariaDB accept one password, or two while they are rotated."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.community.mysql.plugins.module_utils.implementations.mysql.hash import (
    mysql_sha256_password_hash,
)

DOCUMENTATION = """
module: mysql_passwords
short_description: The passwords that an account accepts
description:
  - The account accepts I(password), and I(previous) too unless that is empty; no other.
  - What is accepted before and after is accepted all the time. Connections are left alone.
  - With I(state=asked) nothing is changed. The answer says which of both are accepted, as is found
    by logging in with them where the account may do that from the host itself, or else by what the
    server keeps of them.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "user": {"type": "str", "required": True},
    "host": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "previous": {"type": "str", "default": "", "no_log": True},
    "socket": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "asked"], "default": "present"},
}
REFUSED = 1045  # access denied
SHA2 = "$A$005$"  # what a hash of caching_sha2_password begins with; its salt follows
MYSQL_COLUMNS = "CONVERT(authentication_string USING utf8mb4), User_attributes"
LOCAL = ("localhost", "%")  # hosts of accounts that may log in over the socket
Statement = tuple[str, tuple[str, ...]]


def mariadb_statements(
    account: tuple[str, str], wanted: list[str], accepted: dict[str, bool], more: bool
) -> list[Statement]:
    """Return what makes MariaDB accept the wanted passwords, and no others.

    `more`: the account has another way in than its first. MariaDB tries one after the other.
    """
    if all(accepted[password] for password in wanted) and more == (len(wanted) > 1):
        return []
    # Hashed here: MariaDB writes the statement to its binary log as it came.
    ways = " OR ".join(["mysql_native_password USING %s"] * len(wanted))
    return [(f"ALTER USER %s@%s IDENTIFIED VIA {ways}", (*account, *map(native_hash, wanted)))]


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


def native_hash(password: str) -> str:
    """Return what MariaDB keeps of a password."""
    once = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(once, usedforsecurity=False).hexdigest().upper()


def is_of(password: str, kept: str) -> bool:
    """Say whether a server keeps this of a password."""
    if kept.startswith(SHA2):
        salt = kept[len(SHA2) : len(SHA2) + 20]
        return len(salt) == 20 and kept == mysql_sha256_password_hash(password, salt)
    return kept == native_hash(password)


class Server:
    """The server, asked as root over its socket."""

    def __init__(self, driver: Any, path: str) -> None:
        """Connect."""
        self.driver, self.path = driver, path
        connection = driver.connect(user="root", unix_socket=path, autocommit=True)
        self.cursor = connection.cursor()
        self.cursor.execute("SELECT VERSION()")
        self.mariadb = "mariadb" in self.cursor.fetchone()[0].lower()

    def kept(self, account: tuple[str, str]) -> list[str]:
        """Return what is kept of an account's passwords; nothing when there is no such account."""
        shown, table = ("Priv, NULL", "global_priv") if self.mariadb else (MYSQL_COLUMNS, "user")
        where = "WHERE User = %s AND Host = %s"
        self.cursor.execute(f"SELECT {shown} FROM mysql.{table} {where}", account)
        row = self.cursor.fetchone()
        if not row:
            return []
        if not self.mariadb:
            return [row[0], *filter(None, [json.loads(row[1] or "{}").get("additional_password")])]
        rights = json.loads(row[0])
        # One of the ways is empty: it stands for the first.
        ways = [rights, *filter(None, rights.get("auth_or", []))]
        return [way.get("authentication_string", "") for way in ways]

    def lets_in(self, user: str, password: str) -> bool:
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
    wanted = [password for password in (asked["password"], asked["previous"]) if password]
    statements: list[Statement] = []
    try:
        server = Server(pymysql, asked["socket"])
        kept = server.kept(account)
        if not kept and module.check_mode:
            module.exit_json(changed=True, accepted=[])
        if not kept:
            module.fail_json(msg=f"The server has no account {asked['user']}@{asked['host']}")
        accepted = {word: any(is_of(word, one) for one in kept) for word in wanted}
        # How often MySQL hashes a password differs from version to version, so it is asked itself.
        if asked["host"] in LOCAL and (asked["state"] == "asked" or not server.mariadb):
            accepted = {word: server.lets_in(asked["user"], word) for word in wanted}
        if asked["state"] == "present":
            rules = mariadb_statements if server.mariadb else mysql_statements
            statements = rules(account, list(accepted), accepted, len(kept) > 1)
        for statement, values in [] if module.check_mode else statements:
            server.cursor.execute(statement, values)
    except pymysql.err.MySQLError as error:
        # A statement has passwords, and the server repeats what is near a mistake.
        number = error.args[0] if error.args else "unknown"
        module.fail_json(msg=f"{asked['user']}@{asked['host']}: the server's error is {number}")
    module.exit_json(changed=bool(statements), accepted=[accepted[one] for one in wanted])


if __name__ == "__main__":
    main()
