"""Servers accept two secrets while they are rotated, and what is accepted before and after always.

What the servers make of it is shown on hosts, by scenarios data and security.
"""

from __future__ import annotations

import io

import pytest

from helpers.imports import import_role_file

mysql_passwords = import_role_file("mysql/library/mysql_passwords.py")
redis_users = import_role_file("redis/library/redis_users.py")

ACCOUNT = ("shop", "localhost")


class Mysql:
    """An account of MySQL, as the statements change it."""

    def __init__(self, first: str, second: str = "") -> None:
        """Begin with a password, or two."""
        self.first, self.second = first, second
        self.always = {first, second} - {""}

    def run(self, wanted: list[str]) -> int:
        """Have it accept these; return how many statements that took."""
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
def test_mysql_takes_both_then_one(account):
    account.run(["new", "old"])
    assert {account.first, account.second} == {"new", "old"}
    assert not account.run(["new", "old"])
    account.run(["new"])
    assert (account.first, account.second) == ("new", "")
    assert not account.run(["new"])


def test_mysql_never_refuses_what_it_goes_on_to_accept():
    account = Mysql("old")
    account.run(["new", "old"])
    assert account.always == {"old"}
    account.always = {"old", "new"}
    account.run(["new"])
    assert account.always == {"new"}


@pytest.mark.parametrize(
    ("wanted", "accepted", "more", "ways"),
    [
        (["new", "old"], {"new": False, "old": True}, False, 2),
        (["new", "old"], {"new": True, "old": True}, True, 0),
        (["new", "old"], {"new": True, "old": False}, False, 2),
        (["new"], {"new": True}, True, 1),
        (["new"], {"new": True}, False, 0),
        (["new"], {"new": False}, False, 1),
    ],
)
def test_mariadb_changes_in_one_statement(wanted, accepted, more, ways):
    statements = mysql_passwords.mariadb_statements(ACCOUNT, wanted, accepted, more)
    assert len(statements) == min(ways, 1)
    for statement, values in statements:
        assert statement.count("USING %s") == ways
        # The statement is logged: no password is in it.
        assert values == (*ACCOUNT, *map(mysql_passwords.native_hash, wanted))


def test_what_servers_keep_of_a_password_is_known():
    assert mysql_passwords.native_hash("password") == "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"
    assert mysql_passwords.is_of("password", "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19")
    assert not mysql_passwords.is_of("Password", "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19")
    kept = mysql_passwords.mysql_sha256_password_hash("new", "s" * 20)
    assert mysql_passwords.is_of("new", kept)
    assert not mysql_passwords.is_of("old", kept)
    assert not mysql_passwords.is_of("", "")


def test_redis_settings_that_differ_are_set():
    """As Redis answers: a list of the setting's name and its value."""
    has = {"maxmemory": "10", "appendfsync": "always"}

    def redis(*words):
        if words[1] == "SET":
            has[words[2]] = words[3]
        return [words[2], has[words[2]]]

    wanted = redis_users.settings_of("# no 1\nuser shop on\n\nmaxmemory 20\nappendfsync always\n")
    assert redis_users.set_settings(redis, wanted, check=True) == ["maxmemory"]
    assert has["maxmemory"] == "10"
    assert redis_users.set_settings(redis, wanted, check=False) == ["maxmemory"]
    assert has == wanted
    assert redis_users.set_settings(redis, wanted, check=False) == []


def test_redis_users_are_read_as_redis_reads_them():
    users = redis_users.users_of("# user no\nuser shop on #aa #bb ~* -@all\nuser default off\n\n")
    assert users == {"shop": ["on", "#aa", "#bb", "~*", "-@all"], "default": ["off"]}
    assert redis_users.hashes(users["shop"]) == {"aa", "bb"}


def test_redis_answers_are_read():
    said = b"*4\r\n+OK\r\n:3\r\n$3\r\na\nb\r\n*1\r\n$-1\r\n"
    assert redis_users.answer(io.BytesIO(said)) == ["OK", 3, "a\nb", [None]]
    with pytest.raises(redis_users.RefusedError):
        redis_users.answer(io.BytesIO(b"-WRONGPASS invalid\r\n"))
    with pytest.raises(redis_users.ReplyError):
        redis_users.answer(io.BytesIO(b"-ERR unknown\r\n"))
    with pytest.raises(ConnectionError):
        redis_users.answer(io.BytesIO(b"+O"))


class FakeRedis:
    """A running Redis with its users' passwords."""

    def __init__(self, **users: list[str]) -> None:
        """Begin with these."""
        self.users, self.asked = users, []

    def __call__(self, *words: str):
        """Answer a command."""
        self.asked.append(words)
        if words[1] == "GETUSER":
            known = self.users.get(words[2])
            return None if known is None else ["flags", ["on"], "passwords", known]
        return "OK"

    @property
    def set(self) -> list[str]:
        """Who was set."""
        return [words[2] for words in self.asked if words[1] == "SETUSER"]


def test_redis_is_told_what_differs_and_no_more():
    users = {"shop": ["on", "#bb", "#aa"], "default": ["off"]}
    same = FakeRedis(shop=["aa", "bb"], default=[])
    assert redis_users.take_over(same, users, every=False, check=False) == []
    other = FakeRedis(shop=["aa"], default=[])
    assert redis_users.take_over(other, users, every=False, check=True) == ["shop"]
    assert other.set == []
    redis_users.take_over(other, users, every=False, check=False)
    assert other.set == ["shop"]
    assert other.asked[-1][3:] == ("reset", "on", "#bb", "#aa")
    redis_users.take_over(same, users, every=True, check=False)
    assert same.set == ["shop", "default"]
