"""During a rotation, servers accept two secrets.

A secret that is valid before and after a change is also accepted during it.
Scenarios data and security test this with real servers.
"""

from __future__ import annotations

import pytest

from helpers.imports import import_role_file

mysql_passwords = import_role_file("mysql/library/mysql_passwords.py")
redis_users = import_role_file("redis/library/redis_users.py")

ACCOUNT = ("shop", "localhost")


class Mysql:
    """A MySQL account, changed by statements."""

    def __init__(self, first: str, second: str = "") -> None:
        """Start with one password or two."""
        self.first, self.second = first, second
        self.always = {first, second} - {""}

    def run(self, wanted: list[str]) -> int:
        """Set the accepted passwords; return the number of statements."""
        accepted = {password: password in (self.first, self.second) for password in wanted}
        statements = mysql_passwords.mysql_statements(ACCOUNT, wanted, accepted, bool(self.second))
        for statement, values in statements:
            if "DISCARD" in statement:
                self.second = ""
            else:
                if "RETAIN" in statement:
                    self.second = self.first
                self.first = values[2]
            self.always &= {self.first, self.second}
        return len(statements)


@pytest.mark.parametrize(
    "account",
    [Mysql("old"), Mysql("old", "new"), Mysql("new", "old"), Mysql("old", "older"), Mysql("new")],
)
def test_mysql_accepts_both_passwords_then_one(account):
    valid = {"old", "new"} & account.always
    account.run(["new", "old"])
    assert {account.first, account.second} == {"new", "old"}
    assert account.always >= valid
    assert not account.run(["new", "old"])
    account.always = {"old", "new"}
    account.run(["new"])
    assert (account.first, account.second, account.always) == ("new", "", {"new"})
    assert not account.run(["new"])


@pytest.mark.parametrize(
    ("wanted", "accepted", "more", "methods"),
    [
        (["new", "old"], {"new": False, "old": True}, False, 2),
        (["new", "old"], {"new": True, "old": True}, True, 0),
        (["new"], {"new": True}, True, 1),
        (["new"], {"new": True}, False, 0),
    ],
)
def test_mariadb_changes_passwords_in_one_statement(wanted, accepted, more, methods):
    statements = mysql_passwords.mariadb_statements(ACCOUNT, wanted, accepted, more)
    assert len(statements) == min(methods, 1)
    for statement, values in statements:
        assert statement.count("USING %s") == methods
        # The statement is logged, so it must not contain a password.
        assert values == (*ACCOUNT, *map(mysql_passwords.native_hash, wanted))


def test_password_matches_its_hash():
    assert mysql_passwords.native_hash("password") == "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"
    assert mysql_passwords.matches("password", "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19")
    assert not mysql_passwords.matches("Password", "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19")
    kept = mysql_passwords.mysql_sha256_password_hash("new", "s" * 20)
    assert mysql_passwords.matches("new", kept)
    assert not mysql_passwords.matches("old", kept)
    assert not mysql_passwords.matches("", "")


def test_redis_acl_file_is_parsed():
    users, settings = redis_users.parse(
        "# it's\nuser shop on #aa #bb ~* -@all\nuser default off\n\nmaxmemory 20mb\n"
    )
    assert users == {"shop": ["on", "#aa", "#bb", "~*", "-@all"], "default": ["off"]}
    assert settings == {"maxmemory": str(20 << 20)}
