"""A month of backups in a repository of the real restic."""

from __future__ import annotations

import shutil
import time

import pytest

from flaskstack_backup.jobs import Backup
from flaskstack_backup.processes import BackupError
from flaskstack_backup.store import DAY, of
from helpers.repository import ROOT

# Unpacked by `./stack test offline`, otherwise that of this machine.
RESTIC = shutil.which("restic", path=f"{ROOT}/.local/restic/usr/bin:/usr/bin")
LAST = 1_796_011_200  # 04:00 on Monday, 30 November 2026, in UTC
PARTS = (-30, -20)  # days with a dump


@pytest.fixture
def backup(tmp_path, monkeypatch):
    """Return the backups of a host with a new repository."""
    assert RESTIC, "restic is missing; ./stack test offline unpacks it"
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    settings = {
        **{"app": "shop", "host": "web", "upload_limit": 0, "database": None},
        **{"repository": ["--repo", str(tmp_path / "store")], "state": str(tmp_path)},
        **{"environment": {"RESTIC_PASSWORD": "for this test"}},
        **{"keep": {"daily": 7, "weekly": 4, "monthly": 6}},
    }
    backup = Backup(settings)
    backup.store.arguments[0] = RESTIC
    assert backup.store.initialize(is_own=True)
    yield backup
    monkeypatch.undo()
    time.tzset()


def save(backup, day, kind, text):
    """Create a snapshot of a text as if it were another day."""
    at = LAST + day * DAY
    tags = [kind, f"run={day}", f"at={at}"]
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
    backup.store.call(*backup.store.saving(tags), f"--time={stamp}", "--stdin", input=text)


def test_a_month_keeps_the_newest_backup_of_each_day_week_and_month(backup, monkeypatch):
    """It is pruned once a week. The last snapshot of October is the oldest one that stays."""
    dumps = {}
    for day in range(-31, 1):
        if day in PARTS:
            save(backup, day, "database", f"dump of day {day}")
            dumps[day] = backup.store.snapshots()[-1].id
        save(backup, day, "manifest", "{}")
        if day % 7 == 0:
            monkeypatch.setattr(time, "time", lambda day=day: LAST + day * DAY + 60)
            backup.prune()
    snapshots = backup.store.snapshots()
    kept = [int(one.tags["run"]) for one in of(snapshots, "manifest")]
    assert kept == [-30, -15, -8, *range(-6, 1)]
    assert [one.id for one in of(snapshots, "database")] == [dumps[-30]]
    backup.store.call("check", "--read-data")
    assert backup.store.call("dump", dumps[-30], "stdin") == "dump of day -30"
    with pytest.raises(BackupError, match="no matching ID"):
        backup.store.call("dump", dumps[-20], "stdin")
