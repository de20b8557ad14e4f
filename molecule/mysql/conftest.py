"""Reach a server as the app does: through its socket, or over TLS from another host."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pymysql
import pytest
from waiting import wait_for

APP, MIGRATION = "my_shop", "my_shop_migrate"


@pytest.fixture(scope="module")
def settings(host) -> dict[str, Any]:
    """Give the host's variables."""
    return host.ansible.get_variables()


@pytest.fixture(scope="module")
def generated() -> Callable[[str], str]:
    """Give `generated(name)`: a password that the scenario made."""
    return lambda name: (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / name).read_text().strip()


@pytest.fixture(scope="module")
def passwords(generated) -> dict[str, str]:
    """Give the passwords of the accounts."""
    return {APP: generated("app"), MIGRATION: generated("migration")}


@pytest.fixture(scope="module")
def remote(settings) -> bool:
    """Tell whether the app is on another host."""
    return bool(settings.get("mysql_bind_address"))


@pytest.fixture(scope="module")
def sql(host) -> Callable[..., str]:
    """Give `sql(statement)`: the server's answer to root, through the socket."""
    client = "mariadb" if host.exists("mariadb") else "mysql"
    return lambda statement: host.check_output(f"{client} --batch --skip-column-names --execute=%s", statement)


@pytest.fixture(scope="module")
def socket(settings, tmp_path_factory) -> Iterator[Path]:
    """Bring the server's socket here through SSH."""
    path = tmp_path_factory.mktemp("socket") / "mysqld.sock"
    arguments = shlex.split(settings["ansible_ssh_common_args"])
    key = settings["ansible_private_key_file"]
    login = f"{settings['ansible_user']}@{settings['ansible_host']}"
    forward = f"{path}:/run/mysqld/mysqld.sock"
    command = ["ssh", "-F", "none", "-N", *arguments, "-i", key, "-p", str(settings["ansible_port"]), "-L", forward, login]
    with subprocess.Popen(command) as process:
        try:
            wait_for(path.exists)
            yield path
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def certificate(host, remote, tmp_path_factory) -> Path | None:
    """Bring the server's certificate here, as the app's hosts get it."""
    if not remote:
        return None
    path = tmp_path_factory.mktemp("tls") / "server-cert.pem"
    path.write_text(host.file("/etc/mysql/server-cert.pem").content_string)
    return path


@pytest.fixture
def connect(settings, remote, passwords, certificate, request) -> Iterator[Callable[..., pymysql.Connection]]:
    """Give `connect(user, …)`: a connection as the app would make it, closed after the test."""
    way = (
        {"host": settings["ansible_host"], "ssl_ca": str(certificate), "ssl_verify_identity": True}
        if remote
        else {"unix_socket": str(request.getfixturevalue("socket"))}
    )
    with ExitStack() as connections:

        def connect(user: str = APP, **options: Any) -> pymysql.Connection:
            arguments = {"user": user, "password": passwords.get(user, ""), "database": APP, "autocommit": True}
            connection = pymysql.connect(**(way | arguments | options))
            connections.callback(lambda: connection.open and connection.close())
            return connection

        yield connect


@pytest.fixture
def ask(connect) -> Callable[..., list[tuple[Any, ...]]]:
    """Give `ask(statement, user=…)`: the rows that a new session of that user gets."""

    def ask(statement: str, *values: Any, user: str = APP) -> list[tuple[Any, ...]]:
        with connect(user).cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    return ask


@pytest.fixture
def notes(ask) -> Iterator[str]:
    """Give a table, made by a migration."""
    ask("CREATE TABLE notes (id INT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(60) UNIQUE)", user=MIGRATION)
    yield "notes"
    ask("DROP TABLE notes", user=MIGRATION)


@pytest.fixture
def reported(sql, settings) -> tuple[dict[str, str], dict[str, str]]:
    """Give the tuned variables as the server reports them, and as they should be."""
    lines = (line.partition("\t") for line in sql("SHOW GLOBAL VARIABLES").splitlines())
    variables = {name: value for name, _, value in lines}
    same = [
        *("wait_timeout", "interactive_timeout", "connect_timeout", "net_read_timeout", "net_write_timeout"),
        *("innodb_lock_wait_timeout", "max_connections"),
    ]
    wanted = {name: str(settings[f"mysql_{name}"]) for name in same} | {
        "innodb_buffer_pool_size": str(settings["mysql_innodb_buffer_pool_size"] * 2**20),
        "performance_schema": "ON" if settings["mysql_performance_schema"] else "OFF",
        "binlog_expire_logs_seconds": str(settings["mysql_binlog_expire_days"] * 86400),
        "long_query_time": f"{settings['mysql_slow_query_time']:.6f}",
        "character_set_server": "utf8mb4",
        "collation_server": "utf8mb4_unicode_520_ci",
        "innodb_flush_log_at_trx_commit": "1",
        "sync_binlog": "1",
        "log_bin": "ON",
        "binlog_format": "ROW",
        "slow_query_log": "ON",
        "local_infile": "OFF",
    }
    return {name: variables[name] for name in wanted}, wanted
