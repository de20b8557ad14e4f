"""A release migrates once, alone, and after a dump; a first installation never twice."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import signal
import subprocess
import types
from pathlib import Path

import pytest

from releasing import ROLE, load
from waiting import wait_for

app_database = load("ansible.module_utils.app_database", ROLE / "module_utils/app_database.py")
migrate_release = load("migrate_release", ROLE / "library/migrate_release.py")

RUNNER = """#!/bin/bash
# What <app>-run is to the module: options, then NAME=value lines up to an empty one.
[[ $1 == --environment-from-stdin && $2 == --release ]] || exit 64
export APP_RELEASE=$3
shift 3
while IFS= read -r line && [[ $line ]]; do export "${line?}"; done
exec "$@"
"""
# A client that answers as MySQL's does, from a file of answers: statement, tab-separated row.
CLIENT = """#!/usr/bin/env python3
import json, pathlib, sys
here = pathlib.Path(__file__).parent
option = sys.argv[1].removeprefix("--defaults-file=")
(here / "options").write_text(open(option).read())
(here / "arguments").write_text(" ".join(sys.argv[1:]))
answers = json.loads((here / "answers").read_text())
with (here / "statements").open("a") as log:
    for line in sys.stdin:
        statement = line.rstrip().rstrip(";")
        print(statement, file=log, flush=True)
        if statement.startswith("SELECT 'flaskstack-end"):
            print(statement.split("'")[1], flush=True)
            continue
        for beginning, answer in answers.items():
            if statement.startswith(beginning):
                if answer == "fail":
                    print("ERROR 1045 (28000): Access denied", file=sys.stderr)
                    sys.exit(1)
                print(answer, flush=True)
    print("closed", file=log)
"""
DUMPER = """#!/bin/bash
[[ $1 != --version ]] || { echo 'mysqldump Ver 8'; exit; }
echo "$@" >"${0%/*}/dumped"
echo "CREATE TABLE note (id int);"
DUMPER_END
"""
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
def tools(tmp_path, monkeypatch):
    """Put tools of our own before those of this machine; returns how to change them."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(
        app_database.shutil,
        "which",
        lambda name: str(folder / name) if (folder / name).exists() else None,
    )

    def change(answers=FREE, end="echo '-- Dump completed on 2026-11-21'", mariadb=False):
        texts = {"mysql": CLIENT, "mysqldump": DUMPER.replace("DUMPER_END", end)}
        for name, text in texts.items():
            names = {"mysql": "mariadb", "mysqldump": "mariadb-dump"} if mariadb else {}
            path = folder / names.get(name, name)
            path.write_text(text)
            path.chmod(0o755)
        (folder / "answers").write_text(json.dumps(answers))
        (folder / "statements").write_text("")
        return folder

    change()
    return types.SimpleNamespace(change=change, folder=folder)


@pytest.fixture
def wanted(tmp_path):
    """Return what the role asks the module for."""
    root = tmp_path / "srv"
    root.mkdir()
    runner = tmp_path / "shop-run"
    runner.write_text(RUNNER)
    runner.chmod(0o755)

    def wanted(**changed):
        return {
            "app": "shop",
            "root": str(root),
            "runner": str(runner),
            "release": "one",
            "by": "ada@desk",
            "database": None,
            "environment": "",
            "commands": [],
            "first_install": [],
            "first_install_when": "auto",
            "fleet_serves": False,
            "foreign_databases": [],
            "shared": [],
            "dump": True,
            "dump_folder": str(tmp_path / "backups/shop"),
            "dump_keep": 2,
        } | changed

    return wanted


def migrate(wanted):
    return migrate_release.migrate(wanted)


def refused(wanted):
    with pytest.raises(migrate_release.FailedError) as raised:
        migrate_release.migrate(wanted)
    return raised.value


def test_commands_run_in_order_as_the_app_with_the_environment(wanted, tmp_path):
    out = tmp_path / "out"
    commands = [f"echo $APP_RELEASE $DATABASE_URL >>{out}", f"echo then >>{out}; cat >>{out}"]
    done = migrate(wanted(commands=commands, environment="DATABASE_URL=mysql://a b\nX=1"))
    assert out.read_text() == "one mysql://a b\nthen\n"
    assert (done["changed"], done["dump_file"]) == (True, "")


def test_nothing_to_run_is_nothing_done(wanted):
    assert not migrate(wanted())["changed"]


def test_a_command_that_fails_ends_it_and_shows_its_last_lines(wanted, tmp_path):
    commands = ["seq 100; echo bad >&2; exit 3", f"touch {tmp_path}/never"]
    error = refused(wanted(commands=commands))
    assert str(error).startswith("app_migrate_commands failed with code 3 (seq 100;")
    assert error.details["output"] == [*map(str, range(62, 101)), "bad"]
    assert not (tmp_path / "never").exists()


def test_two_at_a_time_are_refused_and_told_who(wanted, tmp_path):
    root = Path(wanted()["root"])
    with migrate_release.host_lock(root, "bob@lap", "zero"):
        error = refused(wanted(commands=[f"touch {tmp_path}/never"]))
    assert "bob@lap migrates to zero since 20" in str(error)
    assert not (tmp_path / "never").exists()
    assert migrate(wanted(commands=["true"]))["changed"]


def test_the_lock_is_held_while_commands_run(wanted):
    root = Path(wanted()["root"])
    probe = f"! flock --nonblock {root}/.migrate.lock true"
    assert migrate(wanted(commands=[probe]))["changed"]
    with (root / ".migrate.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# The database


def test_a_command_that_outlives_the_module_keeps_both_locks(wanted, tools, tmp_path):
    begun, go, done = (tmp_path / name for name in ("begun", "go", "done"))
    command = f"touch {begun}; until test -e {go}; do sleep 0.05; done; echo done; touch {done}"
    statements = tools.folder / "statements"
    if not (module := os.fork()):
        os.setsid()
        migrate(wanted(commands=[command], database=LOGIN))
        os._exit(0)
    wait_for(begun.exists)
    os.killpg(module, signal.SIGKILL)  # as the end of an SSH connection does
    os.waitpid(module, 0)
    try:
        assert "ada@desk migrates to one" in str(refused(wanted(commands=["true"])))
        assert "GET_LOCK" in statements.read_text()
        assert "closed" not in statements.read_text()
    finally:
        go.touch()
    wait_for(done.exists)
    wait_for(lambda: "closed" in statements.read_text())
    assert migrate(wanted(commands=["true"]))["changed"]


@pytest.mark.parametrize("mariadb", [True, False])
def test_the_database_is_locked_dumped_and_unlocked(wanted, tools, mariadb):
    folder = tools.change(mariadb=mariadb)
    if mariadb:
        (folder / "mysql").unlink()
        (folder / "mysqldump").unlink()
    log = folder / "statements"
    done = migrate(wanted(database=LOGIN, commands=[f"echo migrating >>{log}"]))
    lines = [line for line in log.read_text().splitlines() if "flaskstack-end" not in line]
    assert lines[1] == "SELECT GET_LOCK('flaskstack_shop', 0)"
    assert lines[-3:] == ["migrating", "SELECT 1", "closed"]
    dump = Path(done["dump_file"])
    assert gzip.decompress(dump.read_bytes()).startswith(b"CREATE TABLE note")
    assert (dump.stat().st_mode & 0o777, dump.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert dump.name.endswith("Z-one.sql.gz")
    assert "--single-transaction" in (folder / "dumped").read_text()
    assert ("--set-gtid-purged=OFF" in (folder / "dumped").read_text()) is not mariadb


def test_the_password_is_no_argument(wanted, tools):
    migrate(wanted(database=LOGIN, commands=["true"]))
    for name in ("arguments", "dumped"):
        assert '"b"' not in (tools.folder / name).read_text()
    assert 'password = "a \\"b\\" \\\\ #;"' in (tools.folder / "options").read_text()


def test_a_server_elsewhere_must_show_the_certificate_that_is_known():
    mysql = app_database.option_file(LOGIN, "/usr/bin/mysql")
    assert 'ssl-mode = "VERIFY_IDENTITY"' in mysql
    mariadb = app_database.option_file(LOGIN, "/usr/bin/mariadb")
    for text in (mysql, mariadb):
        assert 'ssl-ca = "/etc/shop/database-ca.pem"' in text
        assert "socket" not in text
    assert 'ssl-verify-server-cert = "1"' in mariadb
    local = app_database.option_file(LOGIN | {"host": ""}, "/usr/bin/mariadb")
    assert 'socket = "/run/mysqld/mysqld.sock"' in local
    assert "ssl" not in local


def test_whoever_holds_the_lock_is_named_at_once(wanted, tools, tmp_path):
    row = "7\tshop_migrate\t10.0.0.9:41234\tshop\tSleep\t42\t\tNULL"
    tools.change(
        {"SELECT GET_LOCK": "0", "SELECT IS_USED_LOCK": "7", "SHOW PROCESSLIST": f"8\tx\n{row}"}
    )
    error = refused(wanted(database=LOGIN, commands=[f"touch {tmp_path}/never"]))
    assert "shop_migrate from 10.0.0.9:41234 (connection 7), for 42 seconds" in str(error)
    assert not (tmp_path / "never").exists()


def test_a_server_that_refuses_is_quoted(wanted, tools):
    tools.change({"SET SESSION": "fail"})
    error = refused(wanted(database=LOGIN, commands=["true"]))
    assert "10.0.0.5" in str(error)
    assert "Access denied" in str(error)


@pytest.mark.parametrize("end", ["exit 2", "echo cut", "echo '-- Dump completed'; exit 2"])
def test_half_a_dump_is_none_and_nothing_is_migrated(wanted, tools, tmp_path, end):
    tools.change(end=end)
    error = refused(wanted(database=LOGIN, commands=[f"touch {tmp_path}/never"]))
    assert error.details["step"] == "dump"
    assert "release_dump: false" in str(error)
    assert list((tmp_path / "backups/shop").iterdir()) == []
    assert not (tmp_path / "never").exists()


def test_only_so_many_dumps_are_kept(wanted, tools, tmp_path):
    folder = tmp_path / "backups/shop"
    folder.mkdir(parents=True)
    for name in ("20200101T000000Z-a.sql.gz", "20210101T000000Z-b.sql.gz", "mine.sql.gz"):
        (folder / name).write_text("")
    done = migrate(wanted(database=LOGIN, commands=["true"]))
    kept = {"mine.sql.gz", "20210101T000000Z-b.sql.gz", Path(done["dump_file"]).name}
    assert {path.name for path in folder.iterdir()} == kept


def test_a_dump_can_be_turned_off_and_an_empty_database_needs_none(wanted, tools):
    assert migrate(wanted(database=LOGIN, commands=["true"], dump=False))["dump_file"] == ""
    tools.change(FREE | {"SELECT COUNT(*)": "0"})
    assert migrate(wanted(database=LOGIN, commands=["true"]))["dump_file"] == ""


def test_missing_tools_are_asked_for_before_anything_happens(wanted, tools, tmp_path):
    (tools.folder / "mysqldump").unlink()
    asked = wanted(database=LOGIN, commands=[f"touch {tmp_path}/done"])
    assert migrate(asked)["tools_missing"]
    assert not (tmp_path / "done").exists()
    assert not migrate(asked | {"dump": False})["tools_missing"]
    (tools.folder / "mysql").unlink()
    assert migrate(asked | {"dump": False})["tools_missing"]


# A first installation


@pytest.fixture
def first(wanted, tmp_path):
    """Return a function that asks for a first installation, and how often it ran."""
    log = tmp_path / "installed"

    def ask(**changed):
        return wanted(first_install=[f"echo once >>{log}"], **changed)

    def ran():
        return log.read_text().count("once") if log.exists() else 0

    return types.SimpleNamespace(ask=ask, ran=ran, log=log)


def test_the_first_release_installs_once_ever(first):
    for release in ("one", "two", "two"):
        done = migrate(first.ask(release=release, commands=["true"]))
        assert done["note"] == ""
    assert first.ran() == 1


def test_it_comes_before_the_migrations(first):
    migrate(first.ask(commands=[f"echo then >>{first.log}"]))
    assert first.log.read_text() == "once\nthen\n"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"fleet_serves": True}, "a release has served before"),
        ({"database": LOGIN}, "the database has 3 tables already"),
        ({"shared": ["empty", "data"]}, "shared/data holds data already"),
    ],
)
def test_where_there_may_be_data_it_never_runs_and_that_is_said_once(first, tools, changed, reason):
    shared = Path(first.ask()["root"]) / "shared"
    (shared / "empty").mkdir(parents=True)
    (shared / "data").mkdir()
    (shared / "data/app.sqlite").write_text("x")
    assert migrate(first.ask(**changed))["note"] == reason
    assert migrate(first.ask(**changed))["note"] == ""
    assert migrate(first.ask())["note"] == ""
    assert first.ran() == 0


def test_what_nobody_can_know_is_refused_until_it_is_said(first):
    asked = first.ask(foreign_databases=["PG_URL"])
    assert "PG_URL names a database elsewhere" in str(refused(asked))
    assert first.ran() == 0
    migrate(asked | {"first_install_when": "run"})
    assert first.ran() == 1
    migrate(asked)
    assert first.ran() == 1


def test_one_that_failed_half_way_is_not_run_again_by_itself(first):
    log = first.log
    asked = first.ask() | {"first_install": [f"echo once >>{log}", "exit 1"]}
    assert str(refused(asked)).startswith("app_first_install_commands failed with code 1")
    error = str(refused(first.ask()))
    assert "did not end well" in error
    assert "release_first_install=run" in error
    assert first.ran() == 1
    assert migrate(first.ask(first_install_when="skip"))["note"]
    assert migrate(first.ask())["note"] == ""
    assert first.ran() == 1


def test_one_that_failed_half_way_may_be_asked_for_again(first):
    refused(first.ask() | {"first_install": ["exit 1"]})
    migrate(first.ask(first_install_when="run"))
    migrate(first.ask())
    assert first.ran() == 1


def test_a_marker_that_cannot_be_read_counts_as_begun(first):
    (Path(first.ask()["root"]) / "first_install.json").write_text("{")
    assert "did not end well" in str(refused(first.ask()))


def test_options_are_in_no_file():
    with app_database.in_memory("secret") as options:
        shown = subprocess.run(
            ["cat", f"/dev/fd/{options}"], pass_fds=[options], capture_output=True, check=True
        )
        assert shown.stdout == b"secret"
        assert os.readlink(f"/proc/self/fd/{options}").startswith("/memfd:")
