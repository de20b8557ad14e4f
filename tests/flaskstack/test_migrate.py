"""A release migrates once, alone and after a dump; a first installation runs at most once."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import signal
import subprocess
from functools import partialmethod
from pathlib import Path

import pytest

from flaskstack import mysql
from flaskstack.app_dir import AppDir
from flaskstack.errors import DeployError
from flaskstack.migrate import migrate
from flaskstack.run import in_memory
from helpers.wait import wait_for

# A client that answers like MySQL's, from a file of statements and tab-separated rows.
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
echo "CREATE TABLE note (id int);"
END
"""
COMPLETE = "echo '-- Dump completed on 2026-11-21'"
FREE = {"SELECT GET_LOCK": "1", "SELECT COUNT(*)": "3"}
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
    there = {"mysql": "mysql", "mysqldump": "mysqldump"}
    monkeypatch.setattr(
        mysql.shutil,
        "which",
        lambda name: str(tools / name) if (tools / name).exists() else None,
    )

    def change(answers=FREE, end=COMPLETE, names=there):
        for name, text in (("mysql", CLIENT), ("mysqldump", DUMPER.replace("END", end))):
            (tools / name).unlink(missing_ok=True)
            if name in names:
                program(names[name], text)
        (tools / "answers").write_text(json.dumps(answers))
        (tools / "statements").write_text("")

    change()
    return change


@pytest.fixture
def wanted(root, tmp_path, write_settings):
    """Return a function that returns the parameters for release `two` with settings `second`."""
    known = {"app": "shop", "root": str(root), "release": "two", "by": "ada@desk"}
    known |= {"settings": write_settings("second"), "environment": ""}
    known |= {"commands": [], "first_install": [], "first_install_when": "auto"}
    known |= {"fleet_serves": False, "foreign_databases": [], "shared": []}
    known |= {"dump": True, "dump_folder": str(tmp_path / "backups/shop"), "dump_keep": 2}
    return lambda **changed: known | changed


def refused(wanted):
    with pytest.raises(DeployError) as raised:
        migrate(wanted)
    return str(raised.value)


def test_commands_run_in_order_in_the_new_release_with_its_settings(wanted, root, tmp_path):
    out = tmp_path / "out"
    commands = [f"echo $PWD $SET $DATABASE_URL >>{out}", f"echo then >>{out}; cat >>{out}"]
    done = migrate(wanted(commands=commands, environment="DATABASE_URL=mysql://a b\nX=1"))
    assert out.read_text() == f"{root}/releases/two second mysql://a b\nthen\n"
    assert (done["changed"], done["dump_file"]) == (True, "")
    assert not migrate(wanted())["changed"]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("seq 100; echo bad >&2; exit 3", "\n".join([*map(str, range(62, 101)), "bad"])),
        (
            "python3 -c 'import os; os.environ[\"KEY\"]'; echo x | exit 3",
            "KeyError: 'KEY'",
        ),
    ],
)
def test_a_failing_command_stops_the_migration_and_its_output_is_shown(
    wanted, tmp_path, command, told
):
    said = refused(wanted(commands=[command, f"touch {tmp_path}/never"]))
    assert said == f"app_migrate_commands failed with code 3 ({command}). Its output:\n{told}"
    assert not (tmp_path / "never").exists()


# Database


def test_a_command_that_outlives_the_program_keeps_both_locks(
    wanted, root, server, tools, tmp_path
):
    begun, go, done = (tmp_path / name for name in ("begun", "go", "done"))
    command = f"touch {begun}; until test -e {go}; do sleep 0.05; done; echo done; touch {done}"
    statements = tools / "statements"
    if not (program := os.fork()):
        os.setsid()
        migrate(wanted(commands=[command], database=LOGIN))
        os._exit(0)
    wait_for(begun.exists)
    os.killpg(program, signal.SIGKILL)  # like a closed SSH connection
    os.waitpid(program, 0)
    try:
        with pytest.raises(DeployError), AppDir(root, "shop").locked(0):
            pass
        assert "ada@desk migrates to two since 20" in (root / ".lock").read_text()
        assert "GET_LOCK" in statements.read_text()
        assert "closed" not in statements.read_text()
    finally:
        go.touch()
    wait_for(done.exists)
    wait_for(lambda: "closed" in statements.read_text())
    assert migrate(wanted(commands=["true"]))["changed"]
    assert (root / ".lock").read_text() == ""


def test_a_second_migration_names_the_first(wanted, root, monkeypatch):
    monkeypatch.setattr(AppDir, "locked", partialmethod(AppDir.locked, 0))
    with (root / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("bob@lap migrates to zero")
        file.flush()
        assert "bob@lap migrates to zero" in refused(wanted(commands=["true"]))


@pytest.mark.parametrize("maker", ["mariadb", "mysql"])
def test_the_database_is_locked_dumped_and_unlocked(wanted, server, tools, maker):
    if maker == "mariadb":
        server(names={"mysql": "mariadb", "mysqldump": "mariadb-dump"})
    log = tools / "statements"
    done = migrate(wanted(database=LOGIN, commands=[f"echo migrating >>{log}"]))
    lines = [line for line in log.read_text().splitlines() if "flaskstack-end" not in line]
    assert lines[1] == "SELECT GET_LOCK('flaskstack_shop', 0)"
    assert lines[-3:] == ["migrating", "SELECT 1", "closed"]
    dump, dumped = Path(done["dump_file"]), (tools / "dumped").read_text()
    assert gzip.decompress(dump.read_bytes()).startswith(b"CREATE TABLE note")
    assert (dump.stat().st_mode & 0o777, dump.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert dump.name.endswith("Z-two.sql.gz")
    assert "--single-transaction" in dumped
    assert ("--set-gtid-purged=OFF" in dumped) is (maker == "mysql")
    # The password is not an argument.
    assert '"b"' not in dumped + (tools / "arguments").read_text()
    assert 'password = "a \\"b\\" \\\\ #;"' in (tools / "options").read_text()


def test_a_remote_server_must_present_a_trusted_certificate():
    for_mysql, for_mariadb = (
        mysql.option_file(LOGIN, f"/usr/bin/{name}") for name in ("mysql", "mariadb")
    )
    assert 'ssl-mode = "VERIFY_IDENTITY"' in for_mysql
    assert 'ssl-verify-server-cert = "1"' in for_mariadb
    for text in (for_mysql, for_mariadb):
        assert 'ssl-ca = "/etc/shop/database-ca.pem"' in text
        assert "socket" not in text
    local = mysql.option_file(LOGIN | {"host": ""}, "/usr/bin/mariadb")
    assert 'socket = "/run/mysqld/mysqld.sock"' in local
    assert "ssl" not in local


ROW = "7\tshop_migrate\t10.0.0.9:41234\tshop\tSleep\t42\t\tNULL"
TAKEN = {"SELECT GET_LOCK": "0", "SELECT IS_USED_LOCK": "7", "SHOW PROCESSLIST": f"8\tx\n{ROW}"}


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (TAKEN, "shop_migrate from 10.0.0.9:41234 (connection 7), for 42 seconds"),
        ({"SET SESSION": "fail"}, "database at 10.0.0.5: ERROR 1045 (28000): Access denied"),
        ({"SET SESSION": "fail"}, "or lacks this database, user or password"),
    ],
)
def test_an_unusable_database_is_reported_immediately(wanted, server, tmp_path, answers, told):
    server(answers)
    assert told in refused(wanted(database=LOGIN, commands=[f"touch {tmp_path}/never"]))
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("", "connection 9 of shop from localhost, for 312 seconds. To end it: KILL 9"),
        ("10.0.0.5", "innodb_trx"),
    ],
)
def test_a_migration_with_a_lock_timeout_names_the_lock_holder(wanted, server, host, told):
    server(FREE | {"SELECT p.id": "9\tshop\tlocalhost\t312"})
    command = "echo '(1205, Lock wait timeout exceeded; try restarting transaction)'; exit 1"
    said = refused(wanted(database=LOGIN | {"host": host}, commands=[command]))
    assert told in said
    assert "mysql_lock_wait_timeout" in said


def test_a_mariadb_dump_can_be_loaded_by_other_servers(wanted, server, program):
    first = r"echo '/*M!999999\- enable the sandbox mode */ '"
    program(
        "mysqldump",
        DUMPER.replace('echo "CREATE', f'{first}\necho "CREATE').replace("END", COMPLETE),
    )
    dump = Path(migrate(wanted(database=LOGIN, commands=["true"]))["dump_file"])
    assert gzip.decompress(dump.read_bytes()).startswith(b"CREATE TABLE note")


@pytest.mark.parametrize("end", ["exit 2", "echo cut", "echo '-- Dump completed'; exit 2"])
def test_an_incomplete_dump_is_removed_and_nothing_is_migrated(wanted, server, tmp_path, end):
    server(end=end)
    told = refused(wanted(database=LOGIN, commands=[f"touch {tmp_path}/never"]))
    assert "release_dump: false" in told
    assert list((tmp_path / "backups/shop").iterdir()) == []
    assert not (tmp_path / "never").exists()


def test_only_dumps_of_the_apps_releases_are_removed_oldest_first(wanted, root, server, tmp_path):
    folder = tmp_path / "backups/shop"
    folder.mkdir(parents=True)
    (root / "deploys.jsonl").write_text('{"release": "one"}\n')
    others = ["2024-before-import.sql.gz", "20200101T000000Z-database.sql.gz", "mine.sql.gz"]
    # The modification time decides, not the name: the clock may have been wrong.
    ours = ["20300101T000000Z-one.sql.gz", "20200101T000000Z-two.sql.gz"]
    for age, name in enumerate([*others, *ours]):
        (folder / name).touch()
        os.utime(folder / name, (1e9 + age, 1e9 + age))
    done = migrate(wanted(database=LOGIN, commands=["true"]))
    kept = {*others, ours[1], Path(done["dump_file"]).name}
    assert {path.name for path in folder.iterdir()} == kept
    again = migrate(wanted(database=LOGIN, commands=["true"], dump_keep=0))
    assert {path.name for path in folder.iterdir()} == {*others, Path(again["dump_file"]).name}


def test_a_dump_can_be_disabled_and_an_empty_database_needs_none(wanted, server):
    assert migrate(wanted(database=LOGIN, commands=["true"], dump=False))["dump_file"] == ""
    server(FREE | {"SELECT COUNT(*)": "0"})
    assert migrate(wanted(database=LOGIN, commands=["true"]))["dump_file"] == ""


def test_missing_tools_are_reported_before_anything_happens(wanted, server, tmp_path):
    asked = wanted(database=LOGIN, commands=[f"touch {tmp_path}/done"])
    server(names={"mysql": "mysql"})
    assert migrate(asked)["tools_missing"]
    assert not (tmp_path / "done").exists()
    assert not migrate(asked | {"dump": False})["tools_missing"]
    server(names={})
    assert migrate(asked | {"dump": False})["tools_missing"]


# First installation


@pytest.fixture
def first(wanted, tmp_path):
    """Return a function that requests a first installation and returns its parameters."""
    log = tmp_path / "installed"
    log.touch()

    def ask(*commands, **changed):
        return wanted(first_install=[f"echo once >>{log}", *commands], **changed)

    ask.log = log
    return ask


def test_the_first_installation_runs_once_before_the_migration(first):
    for release in ("one", "two", "two"):
        command = f"echo {release} >>{first.log}"
        assert migrate(first(release=release, commands=[command]))["note"] == ""
    assert first.log.read_text() == "once\none\ntwo\ntwo\n"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"fleet_serves": True}, "a release has served before"),
        ({"database": LOGIN}, "the database has 3 tables already"),
        ({"shared": ["empty", "data"]}, "shared/data holds data already"),
        ({"first_install_when": "skip"}, "release_first_install says skip"),
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


def test_an_unknown_state_is_rejected_until_the_operator_decides(first):
    asked = first(foreign_databases=["PG_URL"])
    assert "PG_URL names a database elsewhere" in refused(asked)
    assert first.log.read_text() == ""
    migrate(asked | {"first_install_when": "run"})
    migrate(asked)
    assert first.log.read_text() == "once\n"


@pytest.mark.parametrize("when", ["run", "skip"])
def test_a_failed_first_installation_runs_again_only_on_request(first, when):
    assert refused(first("exit 1")).startswith("app_first_install_commands failed with code 1")
    told = refused(first())
    assert "did not end well" in told
    assert "release_first_install=run" in told
    migrate(first(first_install_when=when))
    migrate(first())
    assert first.log.read_text().count("once") == {"run": 2, "skip": 1}[when]


def test_an_unreadable_marker_counts_as_started(first, root):
    (root / "first_install.json").write_text("{")
    assert "did not end well" in refused(first())


def test_database_options_need_no_file():
    with in_memory("secret") as options:
        shown = subprocess.run(
            ["cat", f"/dev/fd/{options}"], pass_fds=[options], capture_output=True, check=True
        )
        assert shown.stdout == b"secret"
        assert os.readlink(f"/proc/self/fd/{options}").startswith("/memfd:")
