"""A release migrates once, alone and after a dump; a first installation runs at most once."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from flaskstack import mysql
from flaskstack.app_dir import AppDir
from flaskstack.errors import DeployError
from flaskstack.migrate import migrate
from flaskstack.run import in_memory
from helpers.wait import wait_for

# Stand-in for MySQL's client: the file `answers` maps statements to tab-separated rows.
CLIENT = """#!/usr/bin/env python3
import json, pathlib, sys
here = pathlib.Path(__file__).parent
(here / "options").write_text(open(sys.argv[1].removeprefix("--defaults-file=")).read())
(here / "arguments").write_text(" ".join(sys.argv[1:]))
answers = json.loads((here / "answers").read_text())
with (here / "statements").open("a") as log:
    for line in sys.stdin:
        statement = line.rstrip().rstrip(";")
        print(statement, file=log, flush=True)
        if statement.startswith("SELECT 'flaskstack-end"):
            print(statement.split("'")[1], flush=True)
        for beginning, answer in answers.items():
            if statement.startswith(beginning):
                if answer == "fail":
                    sys.exit("ERROR 1045 (28000): Access denied for user 'shop_migrate'")
                print(answer, flush=True)
    print("closed", file=log)
"""
DUMPER = """#!/bin/bash
[[ $1 != --version ]] || { echo 'mysqldump Ver 8'; exit; }
echo "$@" >"${0%/*}/dumped"
cat "${1#--defaults-file=}" >"${0%/*}/dump_options"
[[ $0 != */mariadb-dump ]] || echo '/*M!999999\\- enable the sandbox mode */ '
echo "CREATE TABLE note (id int);"
END
"""
COMPLETE = "echo '-- Dump completed on 2026-11-21'"
FREE = {"SELECT GET_LOCK": "1", "SELECT COUNT(*)": "3\t30000000"}
LOGIN = {
    "host": "10.0.0.5",
    "port": 3306,
    "socket": "/run/mysqld/mysqld.sock",
    "ca": "/etc/shop/database-ca.pem",
    "user": "shop_migrate",
    "password": 'a "b" \\ #;',
    "name": "shop",
}


@pytest.fixture
def server(tools, program, monkeypatch):
    """Return a function that sets the answers of the database tools."""
    usual = {"mysql": "mysql", "mysqldump": "mysqldump"}
    monkeypatch.setattr(
        mysql.shutil,
        "which",
        lambda name: str(tools / name) if (tools / name).exists() else None,
    )

    def change(answers=FREE, end=COMPLETE, names=usual):
        for name, text in (("mysql", CLIENT), ("mysqldump", DUMPER.replace("END", end))):
            (tools / name).unlink(missing_ok=True)
            if name in names:
                program(names[name], text)
        (tools / "answers").write_text(json.dumps(answers))
        (tools / "statements").write_text("")

    change()
    return change


@pytest.fixture
def params(root, tmp_path, write_settings):
    """Return a function that returns the parameters for release `two` with settings `second`."""
    usual = {"app": "shop", "root": str(root), "release": "two", "by": "ada@desk"}
    usual |= {"settings": write_settings("second"), "environment": ""}
    usual |= {"commands": ["true"], "first_install": [], "first_install_when": "auto"}
    usual |= {"fleet_serves": False, "foreign_databases": [], "shared": []}
    usual |= {"dump": True, "dump_folder": str(tmp_path / "backups/shop"), "dump_keep": 2}
    usual |= {"dump_limit": 100, "backed_up": False}
    return lambda **changed: usual | changed


@pytest.fixture
def fail(tmp_path):
    """Return a function that runs a failing migration and returns its error."""

    def fail(params):
        with pytest.raises(DeployError) as raised:
            migrate(params)
        assert not (tmp_path / "never").exists()
        return str(raised.value)

    return fail


def test_commands_run_in_order_in_the_new_release_with_its_settings(params, root, tmp_path):
    out = tmp_path / "out"
    commands = [f"echo $PWD $SET $DATABASE_URL >>{out}", f"echo then >>{out}; cat >>{out}"]
    result = migrate(params(commands=commands, environment="DATABASE_URL=mysql://a b\nX=1"))
    assert out.read_text() == f"{root}/releases/two second mysql://a b\nthen\n"
    assert (result["changed"], result["dump_file"]) == (True, "")
    assert not migrate(params(commands=[]))["changed"]


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("seq 100; echo bad >&2; exit 3", "\n".join([*map(str, range(62, 101)), "bad"])),
        ("python3 -c 'import os; os.environ[\"KEY\"]'; echo x | exit 3", "KeyError: 'KEY'"),
    ],
)
def test_a_failing_command_stops_the_migration_and_its_output_is_shown(
    params, fail, tmp_path, command, output
):
    error = fail(params(commands=[command, f"touch {tmp_path}/never"]))
    assert error == f"app_migrate_commands failed with code 3 ({command}). Its output:\n{output}"


# Database


def test_a_command_that_outlives_the_program_keeps_both_locks(
    params, root, server, tools, tmp_path
):
    begun, go, done = (tmp_path / name for name in ("begun", "go", "done"))
    command = f"touch {begun}; until test -e {go}; do sleep 0.05; done; echo done; touch {done}"
    statements = tools / "statements"
    if not (program := os.fork()):
        os.setsid()
        migrate(params(commands=[command], database=LOGIN))
        os._exit(0)
    wait_for(begun.exists)
    os.killpg(program, signal.SIGKILL)  # like a closed SSH connection
    os.waitpid(program, 0)
    try:
        with (
            pytest.raises(DeployError, match="ada@desk has been migrating to two since 20"),
            AppDir(root, "shop").locked(0),
        ):
            pass
        assert "GET_LOCK" in statements.read_text()
        assert "closed" not in statements.read_text()
    finally:
        go.touch()
    wait_for(done.exists)
    wait_for(lambda: "closed" in statements.read_text())
    assert migrate(params())["changed"]
    assert (root / ".lock").read_text() == ""


@pytest.mark.parametrize("vendor", ["mariadb", "mysql"])
def test_the_database_is_locked_dumped_and_unlocked(params, server, tools, vendor):
    if vendor == "mariadb":
        server(names={"mysql": "mariadb", "mysqldump": "mariadb-dump"})
    log = tools / "statements"
    result = migrate(params(database=LOGIN, commands=[f"echo migrating >>{log}"]))
    lines = [line for line in log.read_text().splitlines() if "flaskstack-end" not in line]
    assert lines[1] == "SELECT GET_LOCK('flaskstack_shop', 0)"
    assert lines[-3:] == ["migrating", "SELECT 1", "closed"]
    dump, arguments = Path(result["dump_file"]), (tools / "dumped").read_text()
    # MariaDB's first line, which other servers reject, is left out.
    assert gzip.decompress(dump.read_bytes()).startswith(b"CREATE TABLE note")
    assert (dump.stat().st_mode & 0o777, dump.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert dump.name.endswith("Z-two.sql.gz")
    assert "--single-transaction" in arguments
    assert ("--set-gtid-purged=OFF" in arguments) is (vendor == "mysql")
    # The password is not an argument.
    assert '"b"' not in arguments + (tools / "arguments").read_text()
    assert 'password = "a \\"b\\" \\\\ #;"' in (tools / "options").read_text()


def test_a_remote_server_must_present_a_trusted_certificate():
    for_mysql, for_mariadb = (mysql.option_file(LOGIN, name) for name in ("mysql", "mariadb"))
    assert 'ssl-mode = "VERIFY_IDENTITY"' in for_mysql
    assert 'ssl-verify-server-cert = "1"' in for_mariadb
    for text in (for_mysql, for_mariadb):
        assert 'ssl-ca = "/etc/shop/database-ca.pem"' in text
        assert "socket" not in text
    local = mysql.option_file(LOGIN | {"host": ""}, "/usr/bin/mariadb")
    assert 'socket = "/run/mysqld/mysqld.sock"' in local
    assert "ssl" not in local


ROW = "7\tshop_migrate\t10.0.0.9:41234\tshop\tSleep\t42\t\tNULL"
LOCKED = {"SELECT GET_LOCK": "0", "SELECT IS_USED_LOCK": "7", "SHOW PROCESSLIST": f"8\tx\n{ROW}"}


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (LOCKED, "shop_migrate from 10.0.0.9:41234 (connection 7), for 42 seconds"),
        ({"SET SESSION": "fail"}, "database at 10.0.0.5: ERROR 1045 (28000): Access denied"),
        ({"SET SESSION": "fail"}, "or lacks this database, user or password"),
    ],
)
def test_an_unusable_database_is_reported_immediately(
    params, fail, server, tmp_path, answers, reason
):
    server(answers)
    assert reason in fail(params(database=LOGIN, commands=[f"touch {tmp_path}/never"]))


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "connection 9 of shop from localhost, for 312 seconds. To end it: KILL 9"),
        ("10.0.0.5", "innodb_trx"),
    ],
)
def test_a_migration_with_a_lock_timeout_names_the_lock_holder(params, fail, server, host, reason):
    server(FREE | {"SELECT p.id": "9\tshop\tlocalhost\t312"})
    command = "echo '(1205, Lock wait timeout exceeded; try restarting transaction)'; exit 1"
    error = fail(params(database=LOGIN | {"host": host}, commands=[command]))
    assert reason in error
    assert "mysql_lock_wait_timeout" in error


@pytest.mark.parametrize("end", ["exit 2", "echo cut", "echo '-- Dump completed'; exit 2"])
def test_an_incomplete_dump_is_removed_and_nothing_is_migrated(params, fail, server, tmp_path, end):
    server(end=end)
    error = fail(params(database=LOGIN, commands=[f"touch {tmp_path}/never"]))
    assert "release_dump: false" in error
    assert list((tmp_path / "backups/shop").iterdir()) == []


def test_only_dumps_of_the_apps_releases_are_removed_oldest_first(params, root, server, tmp_path):
    folder = tmp_path / "backups/shop"
    folder.mkdir(parents=True)
    (root / "deploys.jsonl").write_text('{"release": "one"}\n')
    others = ["2024-before-import.sql.gz", "20200101T000000Z-database.sql.gz", "mine.sql.gz"]
    # The modification time decides, not the name: the clock may have been wrong.
    ours = ["20300101T000000Z-one.sql.gz", "20200101T000000Z-two.sql.gz"]
    for age, name in enumerate([*others, *ours]):
        (folder / name).touch()
        os.utime(folder / name, (1e9 + age, 1e9 + age))
    dump = Path(migrate(params(database=LOGIN))["dump_file"])
    kept = {*others, ours[1], dump.name}
    assert {path.name for path in folder.iterdir()} == kept
    dump = Path(migrate(params(database=LOGIN, dump_keep=0))["dump_file"])
    assert {path.name for path in folder.iterdir()} == {*others, dump.name}


def test_a_dump_can_be_disabled_and_an_empty_database_needs_none(params, server):
    assert migrate(params(database=LOGIN, dump=False))["dump_file"] == ""
    server(FREE | {"SELECT COUNT(*)": "0\t0"})
    assert migrate(params(database=LOGIN))["dump_file"] == ""


def test_a_database_above_the_limit_is_migrated_only_with_backups(params, fail, server, tmp_path):
    error = fail(params(database=LOGIN, dump_limit=27, commands=[f"touch {tmp_path}/never"]))
    assert "has 28 MiB, more than release_dump_limit (27)" in error
    assert "-e release_dump_limit=0" in error
    backed_up = params(database=LOGIN, dump_limit=27, backed_up=True)
    result = migrate(backed_up)
    assert (result["changed"], result["dump_file"]) == (True, "")
    undo = r"restore\.yml -e restore_to='\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00'"
    assert re.search(undo, result["undo"])
    assert re.search(undo, fail(backed_up | {"commands": ["false"]}))
    assert migrate(params(database=LOGIN, dump_limit=0))["dump_file"]


@pytest.mark.parametrize(
    ("newest", "free", "fits"),
    [(0, 290, True), (0, 280, False), (10, 277, True), (10, 275, False)],
)
def test_a_dump_starts_only_with_room_for_it(
    params, server, tmp_path, monkeypatch, newest, free, fits
):
    """There is room for all rows, or for twice the newest dump, and 256 MiB more."""
    folder = tmp_path / "backups/shop"
    folder.mkdir(parents=True)
    for age, size in enumerate([60, newest] if newest else []):
        with (folder / f"{age}.sql.gz").open("wb") as file:
            file.truncate(size << 20)
        os.utime(file.name, (1e9 + age, 1e9 + age))
    monkeypatch.setattr(mysql.shutil, "disk_usage", lambda _: SimpleNamespace(free=free << 20))
    if fits:
        assert migrate(params(database=LOGIN))["dump_file"]
    else:
        with pytest.raises(DeployError, match=f"has {free} MiB free, which is less than"):
            migrate(params(database=LOGIN))


def test_a_dump_that_fills_the_disk_is_removed(params, server, tmp_path, monkeypatch):
    free = iter([300 << 20, 255 << 20])
    monkeypatch.setattr(mysql.shutil, "disk_usage", lambda _: SimpleNamespace(free=next(free)))
    with pytest.raises(DeployError, match="has less than 256 MiB free"):
        migrate(params(database=LOGIN))
    assert list((tmp_path / "backups/shop").iterdir()) == []


def test_a_local_database_is_dumped_as_root(params, server, tools, tmp_path):
    """Other accounts cannot read each other's routines."""
    socket = tmp_path / "mysqld.sock"
    socket.touch()
    migrate(params(database=LOGIN | {"host": "127.0.0.1", "socket": str(socket)}))
    options = (tools / "dump_options").read_text()
    assert f'user = "root"\npassword = ""\nsocket = "{socket}"' in options
    migrate(params(database=LOGIN))
    assert 'user = "shop_migrate"' in (tools / "dump_options").read_text()


def test_missing_tools_are_reported_before_anything_happens(params, server, tmp_path):
    migration = params(database=LOGIN, commands=[f"touch {tmp_path}/done"])
    server(names={"mysql": "mysql"})
    assert migrate(migration)["tools_missing"]
    assert not (tmp_path / "done").exists()
    assert not migrate(migration | {"dump": False})["tools_missing"]
    server(names={})
    assert migrate(migration | {"dump": False})["tools_missing"]


# First installation


@pytest.fixture
def first(params, tmp_path):
    """Return a function that requests a first installation and returns its parameters."""
    log = tmp_path / "installed"
    log.touch()

    def first(*commands, **changed):
        return params(first_install=[f"echo once >>{log}", *commands], **changed)

    first.log = log
    return first


def test_the_first_installation_runs_once_before_the_migration(first):
    for release in ("one", "two", "two"):
        command = f"echo {release} >>{first.log}"
        assert migrate(first(release=release, commands=[command]))["note"] == ""
    assert first.log.read_text() == "once\none\ntwo\ntwo\n"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"fleet_serves": True}, "a release was active before"),
        ({"database": LOGIN}, "the database already has 3 tables"),
        ({"shared": ["empty", "data"]}, "shared/data already has data"),
        ({"first_install_when": "skip"}, "release_first_install is skip"),
    ],
)
def test_the_first_installation_is_skipped_when_data_may_exist(
    first, root, server, changed, reason
):
    for name in ("empty", "data"):
        (root / "shared" / name).mkdir(parents=True)
    (root / "shared/data/app.sqlite").write_text("x")
    assert migrate(first(**changed))["note"] == reason
    assert migrate(first())["note"] == ""  # reported only once
    assert first.log.read_text() == ""


def test_an_unknown_state_is_rejected_until_the_operator_decides(first, fail):
    unknown = first(foreign_databases=["PG_URL"])
    assert "PG_URL names a database elsewhere" in fail(unknown)
    assert first.log.read_text() == ""
    migrate(unknown | {"first_install_when": "run"})
    migrate(unknown)
    assert first.log.read_text() == "once\n"


@pytest.mark.parametrize("when", ["run", "skip"])
def test_a_failed_first_installation_runs_again_only_on_request(first, fail, when):
    assert fail(first("exit 1")).startswith("app_first_install_commands failed with code 1")
    error = fail(first())
    assert "did not finish" in error
    assert "release_first_install=run" in error
    migrate(first(first_install_when=when))
    migrate(first())
    assert first.log.read_text().count("once") == {"run": 2, "skip": 1}[when]


def test_database_options_need_no_file():
    with in_memory("secret") as options:
        shown = subprocess.run(
            ["cat", f"/dev/fd/{options}"], pass_fds=[options], capture_output=True, check=True
        )
        assert shown.stdout == b"secret"
        assert os.readlink(f"/proc/self/fd/{options}").startswith("/memfd:")
