"""The backup program on a host: binary logs, snapshots, dumps, retention, metrics."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from flaskstack_backup.cli import do, main, report
from flaskstack_backup.logs import (
    GTID_ANONYMOUS,
    GTID_MARIADB,
    GTID_MYSQL,
    QUERY,
    XID,
    cut,
    log_names,
)
from flaskstack_backup.processes import BackupError, pump
from flaskstack_backup.restore import Restore, moment_of
from flaskstack_backup.servers import Server
from flaskstack_backup.store import DAY, Snapshot, expired, of, select_backup, select_logs

FORMAT, ROWS, ROTATE = 15, 23, 4
SETTINGS = {
    **{"app": "shop", "host": "web", "repository": [], "environment": {}, "upload_limit": 0},
    **{
        "prune": True,
        "is_own": True,
        "secrets": ["app_secret_key"],
        "files": [],
        "checks": [],
        "max_age": 26,
        "binlog_interval": 1800,
    },
    **{"keep": {"daily": 7, "weekly": 4, "monthly": 6}, "check_data": "2%", "queue": None},
    "database": {
        "name": "shop",
        "socket": "/run/none",
        "user": "mysql",
        "users": ["shop"],
        "owner": "shop_migrate",
    },
}


def event(kind, at, body=b"", server=1):
    return struct.pack("<IBIIIH", at, kind, server, 19 + len(body), 0, 0) + body


def gtid(number, at):
    return event(GTID_MARIADB, at, struct.pack("<QIB", number, 0, 0))


def transaction(number, at, end=None):
    """Return a transaction whose last event may be later than its first."""
    return gtid(number, at) + event(ROWS, at, b"row") + event(XID, end or at)


@pytest.fixture
def log(tmp_path):
    """Return a function that writes a binary log and returns its path."""

    def log(number, *events):
        path = tmp_path / f"binlog.{number:06d}"
        path.write_bytes(b"\xfebin" + event(FORMAT, 100) + b"".join(events))
        return path

    return log


def test_logs_end_before_the_first_transaction_of_the_moment(log):
    kept = transaction(1, 200) + transaction(2, 299)
    logs = [log(1, kept, transaction(3, 300), transaction(4, 301)), log(2, transaction(5, 302))]
    first, second = logs
    end = cut(logs, 23, 300)
    assert first.read_bytes().endswith(kept)
    assert logs == [first]
    assert not second.exists()
    assert end == {"transaction": "0-1-2", "time": 299, "log": first.name} | {
        "position": first.stat().st_size
    }


def test_a_transaction_that_commits_after_the_moment_is_cut_as_a_whole(log):
    kept = transaction(1, 299)
    logs = [log(1, kept, transaction(2, 298, end=300), transaction(3, 299))]
    cut(logs, 23, 300)
    assert logs[0].read_bytes().endswith(kept)


def test_without_a_moment_only_a_partial_transaction_is_cut(log):
    kept = transaction(1, 200) + event(ROTATE, 201)
    partial = gtid(3, 203) + event(ROWS, 203, b"row")
    half_an_event = partial + event(XID, 203, b"number..")[:-5]
    only_begin = event(GTID_ANONYMOUS, 203, b"id") + event(QUERY, 203, b"BEGIN....")
    for rest in (partial, half_an_event, only_begin):
        logs = [log(1, kept), log(2, transaction(2, 202), rest)]
        assert cut(logs, 23, None)["transaction"] == "0-1-2"
        assert logs[0].read_bytes().endswith(kept)
        assert logs[1].read_bytes().endswith(transaction(2, 202))


def test_a_schema_change_is_a_whole_transaction(log):
    ddl = gtid(2, 205) + event(QUERY, 205, b"DROP TABLE t....")
    logs = [log(1, transaction(1, 200), ddl)]
    assert cut(logs, 23, None)["transaction"] == "0-1-2"
    assert logs[0].read_bytes().endswith(ddl)


def test_transactions_of_mysql_have_the_id_of_their_server(log):
    body = b"\0" + bytes(range(16)) + struct.pack("<Q", 7)
    group = event(GTID_MYSQL, 200, body) + event(ROWS, 200) + event(XID, 200)
    end = cut([log(1, group)], 23, None)
    assert end["transaction"] == f"{bytes(range(16)).hex()}:7"
    anonymous = event(GTID_ANONYMOUS, 210, body) + event(XID, 210)
    assert cut([log(2, anonymous)], 23, None)["time"] == 210


def test_transactions_before_the_position_are_ignored(log):
    first = transaction(1, 200)
    logs = [log(1, first, transaction(2, 300))]
    end = cut(logs, 23 + len(first), 300)
    assert end["transaction"] == ""
    assert logs[0].stat().st_size == 23 + len(first) == end["position"]


def test_a_restore_needs_the_logs_from_one_to_another():
    assert log_names("binlog.000009", "binlog.000011") == [
        *("binlog.000009", "binlog.000010", "binlog.000011")
    ]


def snapshot(time, **tags):
    """Return a snapshot of a second of an hour."""
    found = {"id": f"{time}", "time": f"2026-11-30T10:{time // 60:02d}:{time % 60:02d}.123456789Z"}
    return Snapshot(found | {"tags": [f"{name}={value}" for name, value in tags.items()]})


BASE = snapshot(0).time


def test_a_moment_takes_the_last_backup_before_it():
    manifests = [
        snapshot(second, manifest="", at=BASE + second, run=second) for second in (100, 200, 300)
    ]
    assert select_backup(manifests, None).tags["run"] == "300"
    assert select_backup(manifests, BASE + 299).tags["run"] == "200"
    assert select_backup(manifests, BASE + 99) is None


def test_logs_reach_the_moment_and_belong_to_the_server_of_the_backup():
    backup = snapshot(100, at=BASE + 100, lineage="a")
    logs = [snapshot(second, binlog="", lineage="a") for second in (90, 110, 120, 130)]
    logs += [snapshot(500, binlog="", lineage="b")]
    assert select_logs(logs, backup, BASE + 115).id == "120"
    assert select_logs(logs, backup, BASE + 999).id == "130"
    assert select_logs(logs, backup, None).id == "130"
    assert select_logs(logs[:1], backup, None) is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("echo data", r"sh wrote an incomplete dump \(code 0\)"),
        ("echo '-- Dump completed'; exit 2", r"sh wrote an incomplete dump \(code 2\)"),
        ("exit 2", r"sh wrote an incomplete dump \(code 2\): is mysql_wait_timeout shorter"),
        ("echo 'Error 2020' >&2; exit 3", r"sh wrote an incomplete dump \(code 3\): Error 2020"),
    ],
)
def test_an_incomplete_dump_never_ends(tmp_path, source, reason):
    """The sink sees no end of file, so that restic creates no snapshot."""
    sink = ["sh", "-c", f"cat >{tmp_path}/data && touch {tmp_path}/ended"]
    with pytest.raises(BackupError, match=reason):
        pump(["sh", "-c", source], sink)
    assert not (tmp_path / "ended").exists()


def test_a_complete_dump_is_copied_with_its_head(tmp_path):
    sink = ["sh", "-c", f"cat >{tmp_path}/data; echo done"]
    done = pump(["sh", "-c", "echo 'SQL\n-- Dump completed'"], sink, b"USE x;\n")
    assert (tmp_path / "data").read_text() == "USE x;\nSQL\n-- Dump completed\n"
    assert (done.head[:3], done.output) == (b"SQL", "done\n")


def test_a_failing_sink_is_reported():
    source = ["sh", "-c", "head -c 9000000 /dev/zero; echo '-- Dump completed'"]
    with pytest.raises(BackupError, match="sh ended with code 4"):
        pump(source, ["sh", "-c", "exit 4"])


DUMP = """/*!50001 CREATE ALGORITHM=UNDEFINED */
/*!50013 DEFINER=`a.b`@`%` SQL SECURITY DEFINER */
/*!50001 VIEW `two` AS select `shop`.`one`.`id` from `shop`.`one` */;
/*!50003 CREATE*/ /*!50017 DEFINER=`known`@`%`*/ /*!50003 TRIGGER t BEFORE INSERT ON one */;;
CREATE DEFINER=`a.b`@`%` PROCEDURE `p`()
INSERT INTO `one` VALUES ('CREATE DEFINER=`a.b`@`%`','`shop`.`one`');
-- Dump completed
"""


@pytest.fixture
def server(tmp_path):
    """Return a server whose dump tool prints DUMP."""
    server = Server("/run/none")
    (tmp_path / "dump.sql").write_text(DUMP)
    server.dumper = ["sh", "-c", f"cat {tmp_path}/dump.sql"]
    return server


def output(command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_an_account_of_the_server_replaces_missing_definers(server):
    new = output(server.dump_with_definers("shop", {"`a.b`@`%`"}, "`own`@`%`"))
    expected = DUMP.replace("50013 DEFINER=`a.b`", "50013 DEFINER=`own`")
    assert new == expected.replace("\nCREATE DEFINER=`a.b`", "\nCREATE DEFINER=`own`")
    assert output(server.dump_with_definers("shop", set(), "`own`@`%`")) == DUMP


def test_views_of_a_database_beside_use_its_tables_as_root(server):
    lines = output(server.dump_as("shop", "before")).splitlines()
    assert lines[1] == "/*!50013 DEFINER=`root`@`localhost` SQL SECURITY DEFINER */"
    assert "select `before`.`one`.`id` from `before`.`one`" in lines[2]
    assert lines[3].startswith("/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/")
    assert lines[5:] == DUMP.splitlines()[5:]


@pytest.fixture
def backup(tmp_path):
    """Return the backups of a host with an empty state."""
    (tmp_path / "state").mkdir()
    paths = {"state": str(tmp_path / "state"), "metrics": str(tmp_path / "shop.prom")}
    return Restore(SETTINGS | paths)


def test_a_new_server_begins_a_new_series_of_logs(backup):
    first = backup.lineage([("binlog.000001", 500)])
    assert backup.lineage([("binlog.000001", 600), ("binlog.000002", 10)]) == first
    assert backup.lineage([("binlog.000002", 20)]) == first
    second = backup.lineage([("binlog.000002", 19)])
    assert second != first
    assert backup.lineage([("binlog.000001", 900)]) not in (first, second)


class Store:
    """A store with snapshots, that records the calls of restic."""

    def __init__(self, snapshots=()):
        self.found, self.calls = [*snapshots], []

    def snapshots(self):
        return self.found

    def call(self, *arguments):
        self.calls.append(arguments)

    def forget(self, snapshots):
        self.calls.append(("forget", *[one.id for one in snapshots]))


def stored(at, kind, /, **tags):
    found = Snapshot({"id": f"{kind}-{at}", "time": "2026-01-01T00:00:00Z", "tags": [kind]})
    found.time, found.tags = at, found.tags | tags
    return found


def days(snapshots):
    """Return the days of snapshots, counted from BASE."""
    return [round((one.time - BASE) / DAY) for one in snapshots]


def test_a_year_keeps_the_newest_backup_of_each_day_week_and_month():
    """BASE is a Monday, the last day of November."""
    snapshots, keep = [], {"daily": 7, "weekly": 4, "monthly": 3}
    for day in range(-365, 1):
        for hour in (0, 3):
            at = BASE + day * DAY + hour * 3600
            kinds = ("database", "files", "manifest")
            snapshots += [stored(at, kind, run=f"{at}", at=at) for kind in kinds]
            snapshots.append(stored(at + 60, "binlog", lineage="a"))
        now = at + 120
        manifests, others = expired(snapshots, keep, now)
        snapshots = [one for one in snapshots if one not in manifests and one not in others]
    left = {kind: days(of(snapshots, kind)) for kind in ("manifest", "database", "files", "binlog")}
    daily, weekly, monthly = [*range(-6, 0)], [-15, -8, -1], [-61, -30]
    assert left["manifest"] == [*sorted({*monthly, *weekly, *daily}), 0, 0]
    assert left["database"] == left["files"] == left["manifest"]
    assert left["binlog"] == [*range(-7, 0), 0, 0]


def test_logs_of_a_previous_server_are_kept_as_long():
    """Both servers shipped on the same day."""
    logs = [stored(BASE - 2 * DAY + n, "binlog", lineage=name) for n, name in enumerate("aabb")]
    keep = {"daily": 7, "weekly": 0, "monthly": 0}
    assert expired(logs, keep, BASE)[1] == [logs[0], logs[2]]


def test_parts_without_a_manifest_expire_after_a_day(backup, monkeypatch):
    snapshots = [stored(BASE - at, "database", run=f"{at}") for at in (DAY + 1, DAY - 1)]
    monkeypatch.setattr(time, "time", lambda: BASE)
    backup.store = Store(snapshots)
    backup.prune()
    unlock, first, second, prune = backup.store.calls
    assert (unlock, first, prune[0]) == (("unlock",), ("forget",), "prune")
    assert second == ("forget", snapshots[0].id)


def test_a_missing_or_old_backup_fails_the_check(backup):
    backup.store = Store([])
    with pytest.raises(BackupError, match="newest backup does not exist"):
        backup.check()
    now = time.time()
    backup.store = Store([snapshot(0, manifest="", at=now - 94000)])
    with pytest.raises(BackupError, match="newest backup is 26 hours old"):
        backup.check()
    backup.store = Store([snapshot(0, manifest="", at=now - 93000)])
    assert 92999 < backup.check()["age"] < 93100
    assert backup.store.calls == [("check", "--read-data-subset=2%")]


def test_a_failed_check_of_the_app_names_the_query(backup):
    backup.settings.checks = ["SELECT COUNT(*) FROM user", "SELECT 0"]
    answers = {"SELECT COUNT(*) FROM user": [["3"]], "SELECT 0": [["0"]]}
    server = SimpleNamespace(query=lambda text: answers[text.removeprefix("USE `shop`; ")])
    with pytest.raises(BackupError, match="fails this check: SELECT 0"):
        backup.run_checks(server)
    backup.settings.checks.pop()
    assert backup.run_checks(server) == 1


@pytest.fixture
def restic(tmp_path, monkeypatch, backup):
    """Return a function that installs a restic with this script."""

    def restic(script):
        path = tmp_path / "bin" / "restic"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        backup.store.environment["PATH"] = f"{path.parent}:/usr/bin:/bin"
        monkeypatch.setattr(time, "sleep", lambda seconds: None)

    return restic


def test_a_locked_repository_is_waited_for(backup, restic, tmp_path):
    locked = "unable to create lock in backend: repository is already locked by PID 7"
    restic(f"mkdir {tmp_path}/first 2>&- && {{ echo '{locked}' >&2; exit 1; }}; echo []")
    assert backup.store.call("snapshots") == "[]\n"
    assert (tmp_path / "first").exists()


def test_files_that_vanish_while_they_are_saved_are_no_failure(backup, restic):
    summary = '{"message_type":"summary","snapshot_id":"s"}'
    gone = '{"message_type":"error","error":{"Op":"lstat","Path":"/x","Err":2},"item":"/x"}'
    result = f"echo '{summary}'; echo 'Warning: at least one error occurred' >&2; exit 3"
    restic(f"echo '{gone}' >&2; {result}")
    assert backup.store.save(["files"], "/x")["snapshot_id"] == "s"
    restic(f"echo '{gone.replace(':2}', ':13}')}' >&2; {result}")
    with pytest.raises(BackupError, match="restic: "):
        backup.store.save(["files"], "/x")


def test_only_a_missing_repository_is_created(backup, restic):
    restic("[ $2 = init ]")
    assert backup.store.initialize(is_own=True)
    exists = "Fatal: create repository failed: repository config already initialized"
    restic(f"[ $2 = cat ] || {{ echo '{exists}' >&2; exit 1; }}")
    assert not backup.store.initialize(is_own=True)
    refused = f"[ $2 = cat ] && echo wrong password >&2 || echo '{exists}' >&2; exit 1"
    for script, reason in (
        (refused, "wrong password"),
        ("[ $2 = cat ] || { echo no host >&2; exit 1; }", "no host"),
    ):
        restic(script)
        with pytest.raises(BackupError, match=reason):
            backup.store.initialize(is_own=True)
    restic("[ $2 = cat ] || { echo created >&2; exit 1; }")
    assert not backup.store.initialize(is_own=False)


def metrics(tmp_path):
    lines = (tmp_path / "shop.prom").read_text().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_metrics_have_every_job_and_keep_the_last_success(backup, tmp_path, monkeypatch, capsys):
    backup.record("ship", last_success_timestamp_seconds=1, duration_seconds=2.5, size_bytes=3)
    report(backup, "ship")
    monkeypatch.setenv("SERVICE_RESULT", "exit-code")
    backup.record("run", reason="restic: no space")
    report(backup, "run")
    found = metrics(tmp_path)
    labels = 'app="shop",job="ship"'
    assert found[f"flaskstack_backup_last_success_timestamp_seconds{{{labels}}}"] == "1"
    assert found[f"flaskstack_backup_failed{{{labels}}}"] == "0"
    assert found['flaskstack_backup_failed{app="shop",job="run"}'] == "1"
    ages = {name: age for name, age in found.items() if "_max_age_" in name}
    assert ages == {  # no check has run
        f"flaskstack_backup_max_age_seconds{{{labels}}}": "2400",
        'flaskstack_backup_max_age_seconds{app="shop",job="run"}': "93600",
    }
    assert "<3>Backup job run of shop failed. restic: no space" in capsys.readouterr().out


def test_secrets_of_the_inventory_are_named_in_the_manifest_and_not_stored(
    backup, restic, tmp_path
):
    restic(f'cat >{tmp_path}/manifest; echo \'{{"message_type":"summary","snapshot_id":"s"}}\'')
    backup.database, backup.settings.prune = None, False
    backup.claim()
    assert backup.run()["secrets"] == ["app_secret_key"]
    assert json.loads((tmp_path / "manifest").read_text())["secrets"] == ["app_secret_key"]


def test_a_new_server_makes_no_backup_before_it_has_restored_those_of_the_previous_one(backup):
    backup.store = Store([snapshot(0, manifest="", at=BASE)])
    with pytest.raises(BackupError, match=r"The store has backups of web .* -e confirm=yes"):
        backup.run()
    backup.claim()
    backup.require_claim()


def test_the_first_server_needs_no_claim(backup):
    backup.store = Store()
    backup.require_claim()
    assert backup.read("claimed")


@pytest.mark.parametrize("action", ["run", "ship"])
def test_a_host_never_writes_to_the_backups_of_another_one(backup, action):
    backup.settings.is_own = False
    with pytest.raises(BackupError, match="restores the backups of web; it makes none"):
        do(backup, SimpleNamespace(action=action))


@pytest.mark.parametrize(
    ("text", "moment"),
    [("", None), ("2026-11-30T10:00:00Z", BASE // 1), ("2026-11-30 11:00:00.9+01:00", BASE // 1)],
)
def test_moments_have_whole_seconds(text, moment):
    assert moment_of(text) == moment


def test_an_invalid_moment_is_reported(backup, monkeypatch, capsys, tmp_path):
    path = tmp_path / "settings.json"
    state = {"state": str(tmp_path / "state"), "metrics": ""}
    path.write_text(json.dumps(SETTINGS | state))
    monkeypatch.setattr(sys, "argv", ["backup.py", str(path), "restore", "--to", "yesterday"])
    monkeypatch.setattr("os.umask", lambda mode: 0)  # other tests run in the same process
    assert main() == 1
    assert "'yesterday' is no time such as 2026-11-20 14:03:00" in capsys.readouterr().err
