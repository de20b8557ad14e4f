"""Backup settings: rejected values, and the files and units of the role."""

from __future__ import annotations

import json
import re

import pytest

ON = {"backup_repository": "/srv/backups", "backup_password": "the password of the backups"}
SFTP = ON | {
    "backup_repository": "sftp://backup@store.example.org//srv/backups/host",
    "backup_ssh_known_hosts": ["store.example.org ssh-ed25519 AAAA"],
}


@pytest.fixture
def problems(evaluate):
    """Return a function that returns the problems of settings."""
    return lambda **settings: evaluate("backup", "__backup_problems", **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        ON,
        SFTP,
        SFTP | {"backup_repository": "ssh://backup@store.example.org:2222"},
        ON | {"backup_repository": "s3:https://fra1.example.com/bucket/host"},
        SFTP | {"ansible_play_hosts_all": ["host", "other"]},
    ],
)
def test_valid_settings_are_accepted(problems, settings):
    assert problems(**settings) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ON | {"backup_repository": "backups"},
            "backup_repository is backups: must be an absolute",
        ),
        (ON | {"backup_repository": "sftp:store"}, "backup_repository is sftp:store: must be an"),
        (
            SFTP | {"backup_ssh_known_hosts": []},
            "backup_ssh_known_hosts: must list the host keys of the store",
        ),
        (
            ON
            | {"backup_repository": "s3:https://a/b", "ansible_play_hosts_all": ["host", "other"]},
            "backup_repository is s3:https://a/b: must contain backup_host, since",
        ),
        (ON | {"backup_password": "short"}, "backup_password: must have 16 characters or more. "),
        (ON | {"backup_secret_environment": {"A": "b\nc"}}, "backup_secret_environment: must have"),
        (ON | {"backup_check_data": "all"}, "backup_check_data is all: must be a percentage"),
        (ON | {"backup_schedule": ""}, 'backup_schedule is "": must be a time of systemd'),
        (ON | {"backup_binlog_interval": 5}, "backup_binlog_interval is 5: must be 10 or more"),
        (ON | {"backup_keep_daily": 0}, "backup_keep_daily is 0: must be 1 or more"),
        (ON | {"backup_paths": ["data"]}, "backup_paths is [data]: must have absolute paths"),
    ],
)
def test_invalid_settings_are_rejected(problems, settings, message):
    (found,) = problems(**settings)
    assert found.startswith(message)
    assert "short" not in found


def rendered(render, **variables):
    return json.loads(render("backup", "etc/flaskstack/backup/settings.json.j2", **variables))


def test_secrets_are_in_the_environment_and_never_in_arguments(render):
    secret = {"AWS_SECRET_ACCESS_KEY": "key of the store"}
    found = rendered(render, **SFTP, backup_secret_environment=secret)
    assert found["environment"] == secret | {
        "RESTIC_REPOSITORY": SFTP["backup_repository"],
        "RESTIC_PASSWORD": SFTP["backup_password"],
    }
    assert "password" not in " ".join(found["repository"])
    assert {"app_secret_key", "backup_password"} <= {*found["secrets"]}
    units = render("backup", "etc/systemd/system/backup@.service.j2", **SFTP)
    assert SFTP["backup_password"] not in units


@pytest.mark.parametrize(
    ("parts", "present"),
    [(["database"], {"database"}), (["queue"], {"queue"}), (["files"], set())],
)
def test_a_host_backs_up_its_parts(render, parts, present):
    found = rendered(render, **ON, backup_parts=parts, app_user="shop")
    assert {part for part in ("database", "queue") if found[part]} == present
    files = ["/srv/shop/shared", "/var/lib/shop"] if parts == ["files"] else []
    assert found["files"] == files


def test_sizes_and_ages_are_numbers(render):
    given = {"backup_keep_daily": "9", "backup_max_age": "2", "backup_binlog_interval": "90"}
    found = rendered(render, **ON, **given)
    ages = (found["max_age"], found["binlog_interval"])
    assert (found["keep"]["daily"], *ages) == (9, 2, 90)


def test_jobs_yield_to_requests_and_report(render):
    unit = render("backup", "etc/systemd/system/backup@.service.j2", **ON)
    for line in ("Nice=10", "IOSchedulingClass=idle", "ReadWritePaths=/srv/backups"):
        assert f"\n{line}\n" in unit
    assert re.search(r"\nExecStopPost=.* report %i\n", unit)


@pytest.mark.parametrize(
    ("timer", "line"),
    [
        ({"name": "run", "schedule": "daily", "interval": 0}, "OnCalendar=daily"),
        ({"name": "ship", "schedule": "", "interval": 30}, "OnUnitInactiveSec=30"),
        ({"name": "drill", "schedule": "", "interval": 0}, "OnActiveSec=infinity"),
    ],
)
def test_timers(render, timer, line):
    text = render("backup", "etc/systemd/system/backup.timer.j2", **ON, item=timer)
    assert f"\n{line}\n" in text


def test_nothing_is_installed_without_a_store(evaluate):
    assert evaluate("backup", "__backup_packages") == []
    assert evaluate("backup", "__backup_packages", **ON) == ["restic"]
    assert evaluate("backup", "__backup_packages", **SFTP) == ["restic", "openssh-client"]
