"""Manage the passwords of a MySQL or MariaDB account: one, or two during a rotation."""

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
short_description: Manage the passwords of an account
description:
  - The account accepts I(password), also I(previous) unless it is empty, and no other.
  - A password that is valid before and after the change is valid throughout. Connections stay open.
  - I(state=query) changes nothing. C(accepted) lists which of both are valid, found by logging in
    where the account may log in from the host itself, or else by the server's password hashes.
author: Flaskstack
"""
OPTIONS: dict[str, Any] = {
    "user": {"type": "str", "required": True},
    "host": {"type": "str", "required": True},
    "password": {"type": "str", "required": True, "no_log": True},
    "previous": {"type": "str", "default": "", "no_log": True},
    "socket": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "query"], "default": "present"},
}
ACCESS_DENIED = 1045
SHA2 = "$A$005$"  # prefix of a caching_sha2_password hash; the salt follows
MYSQL_COLUMNS = "CONVERT(authentication_string USING utf8mb4), User_attributes"
LOCAL = ("localhost", "%")  # hosts of accounts that may log in over the socket
Statement = tuple[str, tuple[str, ...]]


def mariadb_statements(
    account: tuple[str, str], passwords: list[str], accepted: dict[str, bool], has_second: bool
) -> list[Statement]:
    """Return the statements that make MariaDB accept these passwords, and no others.

    `has_second`: the account has a second authentication method. MariaDB tries them in order.
    """
    if all(accepted[password] for password in passwords) and has_second == (len(passwords) > 1):
        return []
    # Hashed here, because MariaDB writes the statement to its binary log.
    methods = " OR ".join(["mysql_native_password USING %s"] * len(passwords))
    values = (*account, *map(native_hash, passwords))
    return [(f"ALTER USER %s@%s IDENTIFIED VIA {methods}", values)]


def mysql_statements(
    account: tuple[str, str], passwords: list[str], accepted: dict[str, bool], has_second: bool
) -> list[Statement]:
    """Return the statements that make MySQL accept these passwords, and no others.

    `has_second`: the account has a second password. A new first password leaves the second one
    unchanged; with RETAIN, the former first password becomes the second one. So the previous
    password is set first.
    """
    change = "ALTER USER %s@%s IDENTIFIED WITH caching_sha2_password BY %s"
    retain = f"{change} RETAIN CURRENT PASSWORD"
    if len(passwords) > 1:
        if all(accepted[password] for password in passwords):
            return []
        return [(retain, (*account, password)) for password in reversed(passwords)]
    if accepted[passwords[0]] and not has_second:
        return []
    # The password may be the second one, which is discarded below.
    first = [(change, (*account, passwords[0]))]
    return first + ([("ALTER USER %s@%s DISCARD OLD PASSWORD", account)] if has_second else [])


def native_hash(password: str) -> str:
    """Return MariaDB's hash of a password."""
    once = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    return "*" + hashlib.sha1(once, usedforsecurity=False).hexdigest().upper()


def matches(password: str, stored: str) -> bool:
    """Return whether a stored hash is that of a password."""
    if stored.startswith(SHA2):
        salt = stored[len(SHA2) : len(SHA2) + 20]
        return len(salt) == 20 and stored == mysql_sha256_password_hash(password, salt)
    return stored == native_hash(password)


class Server:
    """A connection to the server as root, through the socket."""

    def __init__(self, driver: Any, path: str) -> None:
        """Connect."""
        self.driver, self.path = driver, path
        connection = driver.connect(user="root", unix_socket=path, autocommit=True)
        self.cursor = connection.cursor()
        self.cursor.execute("SELECT VERSION()")
        self.mariadb = "mariadb" in self.cursor.fetchone()[0].lower()

    def hashes(self, account: tuple[str, str]) -> list[str]:
        """Return the password hashes of an account; empty if the account is missing."""
        shown, table = ("Priv, NULL", "global_priv") if self.mariadb else (MYSQL_COLUMNS, "user")
        where = "WHERE User = %s AND Host = %s"
        self.cursor.execute(f"SELECT {shown} FROM mysql.{table} {where}", account)
        row = self.cursor.fetchone()
        if not row:
            return []
        if not self.mariadb:
            return [row[0], *filter(None, [json.loads(row[1] or "{}").get("additional_password")])]
        rights = json.loads(row[0])
        # An empty entry of auth_or stands for the first method.
        methods = [rights, *filter(None, rights.get("auth_or", []))]
        return [method.get("authentication_string", "") for method in methods]

    def accepts(self, user: str, password: str) -> bool:
        """Return whether a user can log in with a password."""
        try:
            self.driver.connect(user=user, password=password, unix_socket=self.path).close()
        except self.driver.err.OperationalError as error:
            if error.args[0] == ACCESS_DENIED:
                return False
            raise
        return True


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    params = module.params
    try:
        import pymysql
    except ImportError:
        module.fail_json(msg="The host has no PyMySQL: install python3-pymysql")
    account = (params["user"], params["host"])
    passwords = [password for password in (params["password"], params["previous"]) if password]
    statements: list[Statement] = []
    try:
        server = Server(pymysql, params["socket"])
        hashes = server.hashes(account)
        if not hashes and module.check_mode:
            module.exit_json(changed=True, accepted=[])
        if not hashes:
            module.fail_json(msg=f"The server has no account {params['user']}@{params['host']}")
        accepted = {one: any(matches(one, stored) for stored in hashes) for one in passwords}
        # The number of MySQL's hashing rounds depends on its version, so log in instead.
        if params["host"] in LOCAL and (params["state"] == "query" or not server.mariadb):
            accepted = {one: server.accepts(params["user"], one) for one in passwords}
        if params["state"] == "present":
            rules = mariadb_statements if server.mariadb else mysql_statements
            statements = rules(account, list(accepted), accepted, len(hashes) > 1)
        for statement, values in [] if module.check_mode else statements:
            server.cursor.execute(statement, values)
    except pymysql.err.MySQLError as error:
        # The server's message may quote the statement, which has passwords.
        number = error.args[0] if error.args else "unknown"
        module.fail_json(msg=f"{params['user']}@{params['host']}: error {number} of the server")
    module.exit_json(changed=bool(statements), accepted=list(accepted.values()))


if __name__ == "__main__":
    main()
