"""Stores, timers and reports of role backup."""

from __future__ import annotations

import json

import pytest

from backups import (
    backup_options,
    backup_parts,
    backup_table,
    backup_timers,
    backup_url,
    job_report,
    restore_plan,
    restore_report,
)

NOON = 1796040000  # 2026-11-30 12:00:00 UTC
END = {"transaction": "0-1-8", "time": NOON, "log": "binlog.000002", "position": 77}


@pytest.mark.parametrize(
    ("groups", "parts"),
    [
        (["app", "edge"], ["files"]),
        (["queue", "database", "cache"], ["database", "queue"]),
        (["edge", "cache"], []),
    ],
)
def test_parts_follow_from_the_groups(groups, parts):
    assert backup_parts(groups) == parts


def test_a_store_behind_ssh_has_its_own_key_and_known_hosts():
    (option,) = backup_options("sftp://backup@store.example.org:2222//srv/shop", "/etc/x")
    for part in ("-i /etc/x/ssh_key", "UserKnownHostsFile=/etc/x/known_hosts", "-p 2222"):
        assert part in option
    assert option.startswith("--option=sftp.command=ssh ")
    assert option.endswith(" backup@store.example.org -s sftp")


def test_an_append_only_store_runs_rclone_over_ssh():
    program, arguments = backup_options("ssh://backup@store.example.org", "/etc/x")
    assert program.startswith("--option=rclone.program=ssh ")
    assert program.endswith(" -p 22 backup@store.example.org")
    assert arguments == "--option=rclone.args=rclone"
    assert backup_url("ssh://backup@store.example.org").startswith("rclone:")


@pytest.mark.parametrize("url", ["/srv/backups", "s3:https://fra1.example.com/bucket/shop"])
def test_other_stores_need_no_options(url):
    assert (backup_url(url), backup_options(url, "/etc/x")) == (url, [])


def test_logs_are_shipped_twice_within_the_limit():
    schedules = ("backup_schedule", "backup_check_schedule", "backup_drill_schedule")
    settings = dict.fromkeys(schedules, "daily") | {"backup_binlog_interval": 60}

    def interval(*parts):
        timers = backup_timers(settings | {"backup_parts": [*parts]})
        return {timer["name"]: timer["interval"] for timer in timers}["ship"]

    assert interval("database", "queue") == 30
    assert interval("files") == 0


def test_timers_without_a_schedule_are_disabled():
    schedules = {"backup_schedule": "daily", "backup_check_schedule": "daily"}
    settings = schedules | {"backup_drill_schedule": "", "backup_binlog_interval": 60}
    timers = backup_timers(settings | {"backup_parts": ["database"]})
    assert [timer["name"] for timer in timers if timer["enabled"]] == ["run", "check", "ship"]


def test_a_host_that_restores_for_another_one_has_no_timers():
    schedules = ("backup_schedule", "backup_check_schedule", "backup_drill_schedule")
    settings = dict.fromkeys(schedules, "daily") | {"backup_binlog_interval": 60}
    timers = backup_timers(settings | {"backup_parts": ["database"]}, is_own=False)
    assert not any(timer["schedule"] or timer["interval"] or timer["enabled"] for timer in timers)
    assert [timer["name"] for timer in timers] == ["run", "check", "drill", "ship"]


def test_table_has_the_newest_backup_first_and_hosts_without_one():
    entry = {"size": 3 << 20, "seconds": 4.4, "parts": ["database", "files"]}
    backups = [
        entry | {"run": "old", "from": NOON - 86400, "to": NOON, "age": 400000},
        entry | {"run": "new", "from": NOON, "to": NOON + 60, "age": 5400},
    ]
    listed = {"a": {"stdout": json.dumps(backups)}, "b": {"stdout": "[]"}, "c": {"skipped": True}}
    lines = backup_table(listed).splitlines()
    _, _, *rows = (" ".join(line.split()) for line in lines)
    assert rows[0] == (
        "a new 1.5 h 3.0 MiB 4 s database, files 2026-11-30 12:00:00 UTC 2026-11-30 12:01:00 UTC"
    )
    assert rows[1].startswith("a old 5 d 3.0 MiB")
    assert rows[2:] == ["b none", "c none"]


PLAN = {"run": "r1", "from": NOON, "parts": ["database"], "database": "shop"}


def test_plan_names_what_is_overwritten_and_how_to_confirm():
    text = restore_plan(PLAN | {"overwrites": ["database shop with 5 tables and views"]}, "web")
    assert "backup r1 of 2026-11-30 12:00:00 UTC" in text
    assert text.endswith(
        "It overwrites database shop with 5 tables and views. To confirm, add -e confirm=yes"
    )
    assert restore_plan(PLAN | {"overwrites": []}, "web").endswith("It overwrites nothing")
    assert restore_plan(PLAN | {"parts": []}, "web") == "Backup r1 of web has none of these parts"


def test_reports_name_the_last_transaction():
    report = restore_report(PLAN | {"seconds": 12.3, "end": END})
    last = "0-1-8 of 2026-11-30 12:00:00 UTC (binlog.000002:77)"
    assert report == f"Restored database from backup r1 as database shop in 12 s, to {last}"
    drill = {"run": "r1", "age": 5400, "size": 1 << 20, "seconds": 9, "end": END, "checks": 2}
    text = job_report(drill, "drill")
    assert "1.5 hours old, 1.0 MiB, in 9 s" in text
    assert text.endswith(f"to {last}; 2 checks of the app passed")
    end = END | {"transaction": ""}
    assert "to the end of the dump of" in restore_report(PLAN | {"seconds": 1, "end": end})
