"""Permissions, limits and durability of the database server."""

import base64
import os
import re
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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


SCHEMA = (Path(__file__).parents[1] / "files/everything.sql").read_text()
# MariaDB only: a sequence, and a table that keeps the history of its rows.
HISTORY = """
CREATE SEQUENCE numbers START 5;
CREATE TABLE history (id INT PRIMARY KEY, value INT) WITH SYSTEM VERSIONING;
INSERT INTO history VALUES (1, 1);
UPDATE history SET value = 2;
"""
CONTENT = """
SELECT * FROM z_parent JOIN a_child ON parent = z_parent.id;
SELECT *, HEX(note) FROM `order`;
SELECT HEX(id), LENGTH(data), SHA2(data, 256), bits + 0, document, made FROM `key`;
SELECT * FROM parts;
SELECT * FROM z_view; SELECT * FROM m_view; CALL `count orders`(@n); SELECT @n, doubled(4);
SELECT table_name, definer, security_type FROM information_schema.views
  WHERE table_schema = DATABASE() ORDER BY 1;
SELECT trigger_name, definer, action_statement FROM information_schema.triggers
  WHERE trigger_schema = DATABASE();
SELECT routine_name, definer, routine_definition, sql_mode FROM information_schema.routines
  WHERE routine_schema = DATABASE() ORDER BY 1;
SELECT event_name, definer, status, event_definition, starts FROM information_schema.events
  WHERE event_schema = DATABASE();
SELECT constraint_name, table_name, delete_rule FROM information_schema.referential_constraints
  WHERE constraint_schema = DATABASE();
SELECT default_character_set_name, default_collation_name FROM information_schema.schemata
  WHERE schema_name = DATABASE();
"""
OF_HISTORY = "SELECT *, row_start, row_end FROM history FOR SYSTEM_TIME ALL; SELECT * FROM numbers;"


def feed(host, client, statements):
    """Run statements as root, in the app's database; return the rows."""
    command = f"{client} --batch --skip-column-names --default-character-set=utf8mb4 {APP}"
    return host.check_output(f"printf %s %s | {command}", "%s", statements)


@contextmanager
def filled(host, client, history):
    """Fill the database with the whole schema, and empty it in the end."""
    feed(host, client, "CREATE USER IF NOT EXISTS gone@localhost")
    grant = "SELECT, INSERT, EXECUTE, TRIGGER, EVENT, CREATE VIEW"
    feed(host, client, f"GRANT {grant} ON {APP}.* TO gone@localhost")
    feed(host, client, SCHEMA + history)
    timeout = feed(host, client, "SELECT @@global.wait_timeout")
    # The compression of a large row may take longer than the scenario's timeout.
    feed(host, client, "SET GLOBAL wait_timeout = 60")
    host.check_output(f"mkdir -p -m 700 /var/backups/{APP}")
    try:
        yield
    finally:
        empty(host, client)
        feed(host, client, f"SET GLOBAL wait_timeout = {timeout}")


def empty(host, client):
    """Remove what a test has created."""
    feed(host, client, f"DROP DATABASE {APP}; CREATE DATABASE {APP}")
    feed(host, client, "DROP USER IF EXISTS gone@localhost")
    host.check_output(f"rm -rf /var/backups/{APP}")


def by_hand(client, path):
    """Return the documented command that restores a dump without the controller."""
    (line,) = re.findall("^    (.*DROP DATABASE.*)$", DOCUMENTED.read_text(), re.MULTILINE)
    line = line.replace("| mariadb", f"| {client}").replace(" shop;", f" {APP};")
    return re.sub(r"/var/backups/\S+[.]sql[.]gz", path, line)


def content(host, client, history=""):
    """Return the rows and objects of a filled database."""
    return feed(host, client, CONTENT + (OF_HISTORY if history else ""))


def restore(operator, host, dump, **variables):
    """Run the playbook that restores a dump."""
    limit = ("--limit", host.backend.get_hostname())
    return operator.play("restore_dump", *limit, dump=dump, **variables)


def check_failure(host, client, query, operator):
    """A restore that fails keeps the previous state in a dump, and the accounts locked."""
    bad = f"-- Host: localhost    Database: {APP}\nCALL missing();\n-- Dump completed\n"
    host.check_output(f"printf %s %s | gzip >/var/backups/{APP}/bad.sql.gz", "%s", bad)
    failed = restore(operator, host, "bad.sql.gz", confirm=True)
    assert failed.code != 0
    assert failed.says("the app's accounts stay locked until a restore succeeds")
    assert failed.says(f"PROCEDURE {APP}.missing does not exist")
    with pytest.raises(pymysql.MySQLError, match=r"(?i)locked"):
        query("SELECT 1")
    host.check_output(f"rm /var/backups/{APP}/bad.sql.gz")


def test_dump_is_restored_with_the_whole_schema(host, client, query, operator):
    """A migration failed halfway. The 40 MiB row fits, because app_upload_size is 40."""
    if host.backend.get_hostname() == "trixie":
        pytest.skip("the next test restores its dump on bookworm")
    previous = f"/var/backups/{APP}/*-before-restore.sql.gz"
    history = HISTORY if client == "mariadb" else ""
    with filled(host, client, history):
        before = content(host, client, history)
        dump(host, f"/var/backups/{APP}/own.sql.gz")
        query("CREATE TABLE half (id INT)", user=MIGRATION)
        query("ALTER TABLE `key` DROP COLUMN data", user=MIGRATION)
        if host.backend.get_hostname() == "bookworm":
            unconfirmed = restore(operator, host, "own.sql.gz")
            assert unconfirmed.code != 0
            assert unconfirmed.says("To confirm, add -e confirm=yes")
            assert query("SELECT * FROM half") == []
            check_failure(host, client, query, operator)
        done = restore(operator, host, "own.sql.gz", confirm=True)
        assert done.code == 0, done.output
        assert content(host, client, history) == before
        assert "half" not in {name for (name,) in query("SHOW TABLES")}
        first = host.check_output(f"ls {previous}").splitlines()[0]
        assert host.check_output(f"zgrep --count 'CREATE TABLE .half' {first}") == "1"
        assert host.check_output(f"stat --format=%a {first}") == "600"


def test_dump_of_another_server_is_restored(host, client, query, operator, tmp_path):
    """The dump of MariaDB 11.8 begins with a line that older and MySQL clients do not support.

    bookworm lacks the definer's account; the account of the migrations replaces it.
    """
    if host.backend.get_hostname() == "trixie":
        pytest.skip("it comes from here")
    inventory, path = os.environ["MOLECULE_INVENTORY_FILE"], f"/var/backups/{APP}/trixie.sql.gz"
    other = testinfra.get_host("ansible://trixie", ansible_inventory=inventory, sudo=True)
    with filled(other, "mariadb", ""):
        if client == "mysql":
            feed(other, "mariadb", f"DROP DATABASE {APP}; CREATE DATABASE {APP}")
            feed(other, "mariadb", "CREATE TABLE travels (id INT PRIMARY KEY)")
        expected = "" if client == "mysql" else content(other, "mariadb")
        dump(other, path)
        (tmp_path / "dump").write_bytes(other.file(path).content)
    host.check_output(f"mkdir -p -m 700 /var/backups/{APP}")
    host.ansible("copy", f"src={tmp_path}/dump dest={path} mode=0600", check=False, become=True)
    try:
        if client == "mysql":
            host.check_output(by_hand(client, path))
            assert query("SHOW TABLES") == [("travels",)]
        else:
            done = restore(operator, host, "trixie.sql.gz", confirm=True)
            assert done.code == 0, done.output
            assert done.says("No accounts for this database: gone@localhost")
            found = content(host, client)
            assert found == expected.replace("gone@localhost", f"{MIGRATION}@%")
    finally:
        empty(host, client)


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
