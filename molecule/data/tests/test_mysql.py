"""Permissions, limits and durability of the database server."""

import base64
import os
import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pymysql
import pytest
import testinfra

from flaskstack.migrate import TRANSACTIONS
from helpers.wait import wait_for

APP, BACKGROUND, MIGRATION = "my_shop", "my_shop_jobs", "my_shop_migrate"
DENIED = {1044, 1142, 1370}
# Sleeps 0.1 s per row, so that the server can stop it between rows.
SLOW = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})"
    " SELECT SUM(SLEEP(0.1)) FROM n"
)
PACKAGE = Path(__file__).parents[3] / "roles/release/files/flaskstack"
DOCUMENTED = Path(__file__).parents[3] / "docs/operations.md"
OPTIONS = {"user": "root", "password": "", "host": "", "socket": "/run/mysqld/mysqld.sock"}
STOPPED = r"(?i)max_statement_time|maximum statement execution time"


def code(error: pytest.ExceptionInfo[pymysql.MySQLError]) -> int:
    """Return the error number of the server."""
    return error.value.args[0]


def test_host_has_its_debian_release_and_default_server(host, sql):
    release, names = host.backend.get_hostname(), host.check_output("cat /etc/os-release")
    assert f"VERSION_CODENAME={release}" in names or (release == "sid" and "/sid" in names)
    assert ("MariaDB" in sql("SELECT @@version")) == (release != "sid")
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_server_variables_are_set(reported):
    assert reported[0] == reported[1]


def test_transaction_can_write_a_row_that_another_has_changed(connect, notes):
    """By default, MariaDB 11.8 reports error 1020, which apps do not expect."""
    with connect() as first, connect() as second:
        second.cursor().execute(f"INSERT INTO {notes} (body) VALUES ('one')")
        first.begin()
        first.cursor().execute(f"SELECT body FROM {notes}")
        second.cursor().execute(f"UPDATE {notes} SET body = 'two'")
        assert first.cursor().execute(f"UPDATE {notes} SET body = 'three'") == 1
        first.commit()


def test_table_with_only_a_character_set_has_the_collation_of_the_database(host, query, notes):
    if host.backend.get_hostname() != "trixie":
        pytest.skip("MySQL and Debian 12's MariaDB have no setting for it")
    query("CREATE TABLE more (body VARCHAR(60)) DEFAULT CHARSET=utf8mb4", user=MIGRATION)
    try:
        assert query(f"SELECT * FROM more JOIN {notes} ON more.body = {notes}.body") == []
    finally:
        query("DROP TABLE more", user=MIGRATION)


DUMP = """
import pathlib, mysql
client, dumper = mysql.find_tools()
with open("/run/dump.cnf", "w") as file:
    file.write(mysql.option_file({options}, client))
with open("/run/dump.cnf") as file:
    mysql.write_dump(dumper, file.fileno(), "my_shop", pathlib.Path("{path}"))
"""


def dump(host, path):
    """Dump the database as a deploy does."""
    text = base64.b64encode((PACKAGE / "mysql.py").read_bytes()).decode()
    host.check_output("mkdir -p /run/dump && echo %s | base64 -d >/run/dump/mysql.py", text)
    code = DUMP.format(options=OPTIONS, path=path)
    host.check_output("umask 077; PYTHONPATH=/run/dump python3 -c %s", code)
    host.check_output("rm -rf /run/dump /run/dump.cnf")


def restored_by(client, path):
    """Return the documented command that restores a dump."""
    (line,) = re.findall("^    (.*DROP DATABASE.*)$", DOCUMENTED.read_text(), re.MULTILINE)
    line = line.replace("| mariadb", f"| {client}").replace(" shop;", " my_shop;")
    return re.sub(r"/var/backups/\S+[.]sql[.]gz", path, line)


def test_documented_command_restores_a_dump(host, client, query, notes):
    """The dump has a row larger than MariaDB's default limit, and a migration failed halfway."""
    query("CREATE TABLE files (id INT PRIMARY KEY AUTO_INCREMENT, data LONGBLOB)", user=MIGRATION)
    query("INSERT INTO files (data) VALUES (%s)", bytes(range(256)))
    fill = "INSERT INTO files (data) SELECT REPEAT(data, %s) FROM files"
    query(fill, 160 * 1024, user=MIGRATION)  # 40 MiB may exceed the time limit of the app's user
    hashes = "SELECT LENGTH(data), SHA2(data, 256) FROM files ORDER BY id"
    before = query(hashes, user=MIGRATION)
    assert [length for length, _ in before] == [256, 40 << 20]
    dump(host, "/root/own.sql.gz")
    query(f"ALTER TABLE {notes} ADD COLUMN half INT", user=MIGRATION)
    query("CREATE TABLE half (id INT)", user=MIGRATION)
    query("TRUNCATE files", user=MIGRATION)
    host.check_output(restored_by(client, "/root/own.sql.gz"))
    assert query(hashes, user=MIGRATION) == before
    assert {name for (name,) in query("SHOW TABLES")} == {"files", notes}
    assert len(query(f"SHOW COLUMNS FROM {notes}")) == 2
    query("DROP TABLE files", user=MIGRATION)
    host.check_output("rm /root/own.sql.gz")


def test_dump_of_trixie_can_be_restored_on_other_servers(host, client, query):
    """The dump of MariaDB 11.8 begins with a line that older and MySQL clients do not support."""
    if host.backend.get_hostname() == "trixie":
        pytest.skip("it comes from here")
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    other = testinfra.get_host("ansible://trixie", ansible_inventory=inventory, sudo=True)
    other.check_output("mariadb my_shop --execute %s", "CREATE TABLE travels (id INT PRIMARY KEY)")
    dump(other, "/root/trixie.sql.gz")
    other.check_output("mariadb my_shop --execute %s", "DROP TABLE travels")
    packed = other.check_output("base64 /root/trixie.sql.gz; rm /root/trixie.sql.gz")
    host.check_output("echo %s | base64 -d >/root/trixie.sql.gz", packed)
    host.check_output(restored_by(client, "/root/trixie.sql.gz"))
    assert ("travels",) in query("SHOW TABLES")
    query("DROP TABLE travels", user=MIGRATION)
    host.check_output("rm /root/trixie.sql.gz")


def test_migration_of_a_table_in_use_times_out(connect, query, notes, sql):
    with connect() as holder:
        holder.begin()
        holder.cursor().execute(f"SELECT body FROM {notes}")
        with pytest.raises(pymysql.MySQLError, match="Lock wait timeout"):
            query(f"ALTER TABLE {notes} ADD COLUMN more INT", user=MIGRATION)
        held = sql(f"USE {APP}; {TRANSACTIONS}").split("\t")  # as in the deploy's message
        assert held[:2] == [str(holder.thread_id()), APP]
        assert query(f"SELECT body FROM {notes}") == []


def test_server_listens_only_for_the_app(listening, address, remote):
    assert listening == {"127.0.0.1:3306"} | ({f"{address}:3306"} if remote else set())


def test_connections_from_other_hosts_require_tls(address, remote, connect, query):
    if not remote:
        with pytest.raises(pymysql.OperationalError, match="refused"):
            pymysql.connect(host=address, user=APP)
        return
    assert query("SHOW STATUS LIKE 'Ssl_version'") == [("Ssl_version", "TLSv1.3")]
    with pytest.raises(pymysql.MySQLError, match="insecure transport"):
        connect(ssl_disabled=True)
    with pytest.raises(pymysql.OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(ssl=ssl.create_default_context())


@pytest.mark.parametrize("password", ["", "root", "invalid"])
def test_other_users_cannot_log_in_as_root(host, client, password):
    command = f"runuser -u nobody -- {client} --user=root --password=%s --execute='SELECT 1'"
    answer = host.run(command, password)
    assert answer.rc == 1
    assert "Access denied for user 'root'" in answer.stderr


def test_app_changes_rows_and_migrations_change_the_schema(query, notes):
    query(f"INSERT INTO {notes} (body) VALUES (%s)", "first")
    query(f"UPDATE {notes} SET body = %s", "second")
    assert query(f"SELECT body FROM {notes}") == [("second",)]
    query(f"ALTER TABLE {notes} ADD COLUMN author VARCHAR(20), ADD INDEX (author)", user=MIGRATION)
    sign = "BEFORE INSERT ON notes FOR EACH ROW SET NEW.author = 'nobody'"
    query(f"CREATE TRIGGER sign {sign}", user=MIGRATION)
    query(f"INSERT INTO {notes} (body) VALUES (%s)", "third")
    assert query(f"SELECT author FROM {notes} WHERE body = %s", "third") == [("nobody",)]
    query(f"DELETE FROM {notes}")
    assert query(f"SELECT COUNT(*) FROM {notes}") == [(0,)]


def test_app_cannot_change_the_schema(query, notes):
    for statement in (
        "CREATE TABLE more (id INT)",
        f"ALTER TABLE {notes} ADD COLUMN more INT",
        f"DROP TABLE {notes}",
        f"TRUNCATE {notes}",
        f"CREATE INDEX more ON {notes} (body)",
        "CREATE DATABASE more",
        f"GRANT SELECT ON {notes} TO my_shop_migrate",
    ):
        for user in (APP, BACKGROUND):
            with pytest.raises(pymysql.MySQLError) as error:
                query(statement, user=user)
            assert code(error) in DENIED, statement


@pytest.mark.parametrize("user", [APP, MIGRATION])
def test_other_databases_are_invisible(sql, query, user):
    other = "my1shop"  # an unescaped underscore in the grant would match it
    sql(f"CREATE DATABASE {other}; CREATE TABLE {other}.notes (id INT)")
    try:
        visible = {name for (name,) in query("SHOW DATABASES", user=user)}
        assert visible - {"information_schema", "performance_schema"} == {APP}
        with pytest.raises(pymysql.MySQLError) as error:
            query(f"SELECT * FROM {other}.notes", user=user)
        assert code(error) in DENIED
        with pytest.raises(pymysql.MySQLError) as error:
            query("SELECT * FROM mysql.user", user=user)
        assert code(error) in DENIED
    finally:
        sql(f"DROP DATABASE {other}")


def test_statement_limit_applies_only_to_requests(query, sql, settings):
    limit = settings["mysql_statement_timeout"]
    started = time.monotonic()
    with pytest.raises(pymysql.MySQLError, match=STOPPED):
        query(SLOW.format(limit * 40))
    assert limit - 0.2 <= time.monotonic() - started < limit + 1.5
    longer = SLOW.format(limit * 10 + 5)
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(query, longer, user=user) for user in (BACKGROUND, MIGRATION)]
        assert sql(longer) == "0"
        assert [other.result() for other in others] == [[(0,)], [(0,)]]


def test_lock_wait_ends_before_the_statement_limit(connect, notes, settings):
    insert = f"INSERT INTO {notes} (body) VALUES ('held')"
    with connect() as holder, connect() as waiter:
        holder.begin()
        holder.cursor().execute(insert)
        started = time.monotonic()
        with pytest.raises(pymysql.MySQLError, match="Lock wait timeout"):
            waiter.cursor().execute(insert)
        assert time.monotonic() - started < settings["mysql_statement_timeout"]


def test_text_is_stored_unchanged(query, notes):
    words = ["grüße", "日本語", "👩‍🚀", "🍣", "🍺"]  # some collations treat the last two as equal
    for word in words:
        query(f"INSERT INTO {notes} (body) VALUES (%s)", word)
    assert [body for (body,) in query(f"SELECT body FROM {notes} ORDER BY id")] == words
    assert query("SELECT @@collation_database") == [("utf8mb4_unicode_520_ci",)]


def test_slow_statement_is_logged(host, query):
    name = f"snail_{uuid4().hex}"
    query(f"SELECT SLEEP(0.7) AS {name}")
    wait_for(lambda: host.run("grep --quiet %s /var/log/mysql/slow.log", name).succeeded)


def test_killed_server_restarts_with_every_commit(host, client, query, notes):
    query(f"INSERT INTO {notes} (body) VALUES (%s)", "kept")
    host.check_output(f"systemctl kill --signal=KILL {client}")
    assert wait_for(lambda: query(f"SELECT body FROM {notes}"), 30) == [("kept",)]
