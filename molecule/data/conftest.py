"""Reach MySQL and Redis as the app does: through their sockets, or over TLS from another host."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pymysql
import pytest

from helpers.wait import wait_for

APP, BACKGROUND, MIGRATION = "my_shop", "my_shop_jobs", "my_shop_migrate"
# Variables of the server that are called after their variables of the role.
SAME_NAME = [
    "wait_timeout",
    "interactive_timeout",
    "connect_timeout",
    "net_read_timeout",
    "net_write_timeout",
    "innodb_lock_wait_timeout",
    "max_connections",
]


class Redis:
    """One instance on a host, asked through redis-cli there."""

    def __init__(self, host, name, password, app="my_shop"):
        self.host, self.app, self.password = host, app, password
        self.socket = f"/run/redis-{app}-{name}/redis.sock"
        self.unit = f"redis-server@{app}-{name}.service"

    def command(self, *arguments, user="", password=None, run_as=""):
        """Return a shell command that asks Redis."""
        asked = shlex.join(["redis-cli", "-s", self.socket, "--user", user or self.app, *arguments])
        return f"REDISCLI_AUTH={shlex.quote(password or self.password)} {run_as} {asked} 2>&1"

    def __call__(self, *arguments, feed="true", **options):
        """Return what redis-cli prints; `feed` is a shell command that prints commands for it."""
        answer = self.host.run(f"{feed} | {self.command(*arguments, **options)}")
        return "\n".join(line for line in answer.stdout.splitlines() if line)

    def info(self, key):
        """Return one value of INFO."""
        lines = self("INFO", "everything").splitlines()
        return dict(line.strip().split(":", 1) for line in lines if ":" in line)[key]

    @property
    def process(self):
        """The process's id as systemd knows it."""
        return int(
            self.host.check_output("systemctl show --property=MainPID --value %s", self.unit)
        )


@pytest.fixture(scope="module")
def settings(host) -> dict[str, Any]:
    """Give the host's variables, and the MiB of a statement that its apps need."""
    packet = 202 if host.backend.get_hostname() == "trixie" else 82
    return host.ansible.get_variables() | {"packet": packet}


@pytest.fixture(scope="module")
def generated() -> Callable[[str], str]:
    """Give `generated(name)`: a password that the scenario made."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    return lambda name: (folder / name).read_text().strip()


@pytest.fixture(scope="module")
def passwords(generated) -> dict[str, str]:
    """Give the passwords of the accounts."""
    return {
        user: generated(name)
        for user, name in ((APP, "app"), (BACKGROUND, "app"), (MIGRATION, "migration"))
    }


@pytest.fixture(scope="module")
def remote(settings) -> bool:
    """Tell whether the app is on another host."""
    return bool(settings.get("mysql_bind_address"))


@pytest.fixture(scope="module")
def client(host) -> str:
    """Give the name of the server's own client, which is that of its service as well."""
    return "mariadb" if host.exists("mariadb") else "mysql"


@pytest.fixture(scope="module")
def sql(host, client) -> Callable[[str], str]:
    """Give `sql(statement)`: the server's answer to root, through the socket."""
    command = f"{client} --batch --skip-column-names --execute=%s"
    return lambda statement: host.check_output(command, statement)


@pytest.fixture(scope="module")
def socket(settings, tmp_path_factory) -> Iterator[Path]:
    """Bring the server's socket, or its port on loopback, here through SSH."""
    path = tmp_path_factory.mktemp("socket") / "mysqld.sock"
    command = (
        "ssh -N -F none {ansible_ssh_common_args} -i {ansible_private_key_file} -p {ansible_port}"
        " -L {path}:{server} {ansible_user}@{ansible_host}"
    )
    host = settings.get("app_database_host")
    server = f"{host}:3306" if host else "/run/mysqld/mysqld.sock"
    command = command.format(path=path, server=server, **settings)
    with subprocess.Popen(shlex.split(command)) as process:
        try:
            wait_for(path.exists)
            yield path
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def certificate(host, tmp_path_factory) -> Path:
    """Bring the server's certificate here, as the app's hosts get it."""
    path = tmp_path_factory.mktemp("tls") / "server-cert.pem"
    path.write_text(host.file("/etc/mysql/server-cert.pem").content_string)
    return path


@pytest.fixture
def way(address, remote, request) -> dict[str, Any]:
    """Give PyMySQL's arguments for the way that the app takes, as SQLAlchemy makes them."""
    if remote:
        return {"host": address, "ssl": {"ca": str(request.getfixturevalue("certificate"))}}
    return {"unix_socket": str(request.getfixturevalue("socket"))}


@pytest.fixture
def connect(way, passwords) -> Iterator[Callable[..., pymysql.Connection]]:
    """Give `connect(user, …)`: a connection as the app would make it, closed after the test."""
    with ExitStack() as connections:

        def connect(user: str = APP, **options: Any) -> pymysql.Connection:
            login = {"user": user, "password": passwords.get(user, ""), "database": APP}
            connection = pymysql.connect(autocommit=True, **(way | login | options))
            connections.callback(lambda: connection.open and connection.close())
            return connection

        yield connect


@pytest.fixture
def listening(host) -> set[str]:
    """Give the addresses and ports that are open, but for those of SSH and Redis."""
    lines = host.check_output("ss -Hltnp").splitlines()
    return {line.split()[3] for line in lines if not re.search('"(sshd|redis-server)"', line)}


@pytest.fixture
def ask(connect) -> Callable[..., list[tuple[Any, ...]]]:
    """Give `ask(statement, user=…)`: the rows that a new session of that user gets."""

    def ask(statement: str, *values: Any, user: str = APP) -> list[tuple[Any, ...]]:
        with connect(user) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    return ask


@pytest.fixture
def notes(ask) -> Iterator[str]:
    """Give a table, made by a migration."""
    columns = "id INT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(60) UNIQUE"
    ask("DROP TABLE IF EXISTS notes", user=MIGRATION)  # an earlier run's
    ask(f"CREATE TABLE notes ({columns})", user=MIGRATION)
    yield "notes"
    ask("DROP TABLE notes", user=MIGRATION)


@pytest.fixture
def reported(sql, settings, client, remote) -> tuple[dict[str, str], dict[str, str]]:
    """Give the tuned variables as the server reports them, and as they should be."""
    lines = (line.partition("\t") for line in sql("SHOW GLOBAL VARIABLES").splitlines())
    variables = {name: value for name, _, value in lines}
    wanted = {name: str(settings[f"mysql_{name}"]) for name in SAME_NAME} | {
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
        "lock_wait_timeout": str(settings["mysql_innodb_lock_wait_timeout"]),
        "max_allowed_packet": str(settings["packet"] * 2**20),
        # What apps rely on, whatever the provider: see the table in the role's README.
        "transaction_isolation": "REPEATABLE-READ",
        "innodb_snapshot_isolation": "OFF",
        "innodb_rollback_on_timeout": "OFF",
        "innodb_strict_mode": "ON",
        "innodb_default_row_format": "dynamic",
        "explicit_defaults_for_timestamp": "ON",
        "group_concat_max_len": str(2**20),
        "log_bin_trust_function_creators": "ON",
        "lower_case_table_names": "0",
        "time_zone": "SYSTEM",
        "skip_name_resolve": "ON",
        "sql_require_primary_key": "OFF",
        "alter_algorithm": "DEFAULT",
        "require_secure_transport": "ON" if remote else "OFF",
    }
    only_one = {"innodb_snapshot_isolation", "sql_require_primary_key", "alter_algorithm"}
    variables["transaction_isolation"] = sql(
        "SELECT @@global.tx_isolation"
        if client == "mariadb"
        else "SELECT @@global.transaction_isolation"
    )
    wanted = {
        name: value for name, value in wanted.items() if name in variables or name not in only_one
    }
    return {name: variables[name] for name in wanted}, wanted


@pytest.fixture
def cache(host, generated):
    """The cache of the host."""
    return Redis(host, "cache", generated("cache"))


@pytest.fixture
def queue(host, generated):
    """The queue of the host."""
    return Redis(host, "queue", generated("queue"))


@pytest.fixture
def neighbour(host, generated):
    """The queue of another app on the host."""
    return Redis(host, "queue", generated("other_queue"), "other_shop")
