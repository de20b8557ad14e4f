"""Connect to MySQL and Redis as the app does: through sockets, or over TLS from another host."""

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
# Server variables with the same name as the role's variable, without its prefix.
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
    """A Redis instance on a host, queried with redis-cli on that host."""

    def __init__(self, host, name, password, app="my_shop"):
        self.host, self.app, self.password = host, app, password
        self.socket = f"/run/redis-{app}-{name}/redis.sock"
        self.unit = f"redis-server@{app}-{name}.service"

    def command(self, *arguments, user="", password=None, run_as=""):
        """Return a shell command that runs redis-cli."""
        client = shlex.join(
            ["redis-cli", "-s", self.socket, "--user", user or self.app, *arguments]
        )
        return f"REDISCLI_AUTH={shlex.quote(password or self.password)} {run_as} {client} 2>&1"

    def __call__(self, *arguments, feed="true", **options):
        """Return the output of redis-cli; `feed` is a shell command that prints its input."""
        answer = self.host.run(f"{feed} | {self.command(*arguments, **options)}")
        return "\n".join(line for line in answer.stdout.splitlines() if line)

    def info(self, key):
        """Return one value of INFO."""
        lines = self("INFO", "everything").splitlines()
        return dict(line.strip().split(":", 1) for line in lines if ":" in line)[key]

    @property
    def process(self):
        """Return the main process ID of the unit."""
        return int(
            self.host.check_output("systemctl show --property=MainPID --value %s", self.unit)
        )


@pytest.fixture(scope="module")
def settings(host) -> dict[str, Any]:
    """Return the host's variables, and the maximum packet in MiB that its apps need."""
    packet = 202 if host.backend.get_hostname() == "trixie" else 82
    return host.ansible.get_variables() | {"packet": packet}


@pytest.fixture(scope="module")
def generated() -> Callable[[str], str]:
    """Return `generated(name)`, which returns a password that the scenario generated."""
    folder = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
    return lambda name: (folder / name).read_text().strip()


@pytest.fixture(scope="module")
def passwords(generated) -> dict[str, str]:
    """Return the passwords of the accounts."""
    return {
        user: generated(name)
        for user, name in ((APP, "app"), (BACKGROUND, "app"), (MIGRATION, "migration"))
    }


@pytest.fixture(scope="module")
def remote(settings) -> bool:
    """Return whether the app is on another host."""
    return bool(settings.get("mysql_bind_address"))


@pytest.fixture(scope="module")
def client(host) -> str:
    """Return the name of the server's client, which is also the name of its service."""
    return "mariadb" if host.exists("mariadb") else "mysql"


@pytest.fixture(scope="module")
def sql(host, client) -> Callable[[str], str]:
    """Return `sql(statement)`, which runs a statement as root through the socket."""
    command = f"{client} --batch --skip-column-names --execute=%s"
    return lambda statement: host.check_output(command, statement)


@pytest.fixture(scope="module")
def socket(settings, tmp_path_factory) -> Iterator[Path]:
    """Forward the server's socket, or its port on loopback, to this machine through SSH."""
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
    """Copy the server's certificate to this machine, as the role does for the app's hosts."""
    path = tmp_path_factory.mktemp("tls") / "server-cert.pem"
    path.write_text(host.file("/etc/mysql/server-cert.pem").content_string)
    return path


@pytest.fixture
def arguments(address, remote, request) -> dict[str, Any]:
    """Return the connection arguments of PyMySQL, as SQLAlchemy passes them for the app."""
    if remote:
        return {"host": address, "ssl": {"ca": str(request.getfixturevalue("certificate"))}}
    return {"unix_socket": str(request.getfixturevalue("socket"))}


@pytest.fixture
def connect(arguments, passwords) -> Iterator[Callable[..., pymysql.Connection]]:
    """Yield `connect(user, …)`, which connects as the app does; closed after the test."""
    with ExitStack() as connections:

        def connect(user: str = APP, **options: Any) -> pymysql.Connection:
            login = {"user": user, "password": passwords.get(user, ""), "database": APP}
            connection = pymysql.connect(autocommit=True, **(arguments | login | options))
            connections.callback(lambda: connection.open and connection.close())
            return connection

        yield connect


@pytest.fixture
def listening(host) -> set[str]:
    """Return the listening addresses and ports, except those of SSH and Redis."""
    lines = host.check_output("ss -Hltnp").splitlines()
    return {line.split()[3] for line in lines if not re.search('"(sshd|redis-server)"', line)}


@pytest.fixture
def query(connect) -> Callable[..., list[tuple[Any, ...]]]:
    """Return `query(statement, user=…)`, which returns the rows of a query in a new session."""

    def query(statement: str, *values: Any, user: str = APP) -> list[tuple[Any, ...]]:
        with connect(user) as connection, connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return list(cursor.fetchall())

    return query


@pytest.fixture
def notes(query) -> Iterator[str]:
    """Yield the name of a table, created by the migration user."""
    columns = "id INT AUTO_INCREMENT PRIMARY KEY, body VARCHAR(60) UNIQUE"
    query("DROP TABLE IF EXISTS notes", user=MIGRATION)  # from an earlier run
    query(f"CREATE TABLE notes ({columns})", user=MIGRATION)
    yield "notes"
    query("DROP TABLE notes", user=MIGRATION)


@pytest.fixture
def reported(sql, settings, client, remote) -> tuple[dict[str, str], dict[str, str]]:
    """Return the reported and the expected values of the server variables that the role sets."""
    lines = (line.partition("\t") for line in sql("SHOW GLOBAL VARIABLES").splitlines())
    variables = {name: value for name, _, value in lines}
    expected = {name: str(value) for name, value in settings["mysql_settings"].items()}
    expected |= {name: str(settings[f"mysql_{name}"]) for name in SAME_NAME} | {
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
        "lock_wait_timeout": "3",
        "max_allowed_packet": str(settings["packet"] * 2**20),
        # Settings that apps depend on with either provider: see the table in the role's README.
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
    expected = {
        name: value for name, value in expected.items() if name in variables or name not in only_one
    }
    return {name: variables[name] for name in expected}, expected


@pytest.fixture
def cache(host, generated):
    """Return the cache of the host."""
    return Redis(host, "cache", generated("cache"))


@pytest.fixture
def queue(host, generated):
    """Return the queue of the host."""
    return Redis(host, "queue", generated("queue"))


@pytest.fixture
def other_queue(host, generated):
    """Return the queue of another app on the host."""
    return Redis(host, "queue", generated("other_queue"), "other_shop")
