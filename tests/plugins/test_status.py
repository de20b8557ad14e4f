"""The screen and the report of playbooks/status.yml."""

from __future__ import annotations

import json

import pytest

from status import site_drift, status_report, status_screen

HOST = {
    "time": 1764374400 + 3 * 86400,  # three days after APP's release
    "uptime": 90000,
    "units": {},
    "memory": {"total": 1000, "available": 400, "swap_used": 0, "services": []},
    "disks": [{"path": "/", "size": 9, "used": 30, "inodes": 5}],
    "updates": {"packages": 3, "security": 0, "lists": 4},
    "restarts": [],
    "certificates": [],
    "backups": [],
    "replication": [],
    "bans": {"sshd": 2, "probes": 1},
    "failed_logins": {"attempts": 14, "addresses": 3},
    "versions": {"system": "Debian GNU/Linux 13.2", "nginx": "1.26"},
}
APP = {"app": "shop", "healthy": True, "release": "r2", "since": "2025-11-29T00:00:00Z"}
APP |= {"by": "ada", "commit": "c2", "units": {}, "maintenance": False}
STATE = {"app": APP, "host": HOST, "problems": []}
DATABASE = {"app": {}, "host": HOST | {"versions": {"mysql-server": "8.4"}}, "problems": []}


def run(*tasks, failures=0):
    """Return the result of the command with these (name, host, outcome)."""
    found = [{"task": {"name": name}, "hosts": {host: outcome}} for name, host, outcome in tasks]
    stats = {"web": {"failures": failures}, "data": {"failures": 0}}
    return {"stdout": "a warning\n" + json.dumps({"plays": [{"tasks": found}], "stats": stats})}


def test_drift_has_the_changed_tasks_of_each_host():
    found = site_drift(
        run(
            ("nginx : Configure the site", "web", {"changed": True}),
            ("nginx : Enable nginx", "web", {"changed": False}),
            ("Report the result", "web", {"changed": True, "action": "ansible.builtin.debug"}),
            ("redis : Configure", "data", {"changed": True}),
            ("Check something", "data", {"failed": True, "msg": "rescued"}),
        )
    )
    assert found["hosts"] == {"web": ["nginx : Configure the site"], "data": ["redis : Configure"]}
    assert found["error"] == ""


def test_failed_check_is_an_error():
    failed = run(("Validate", "web", {"failed": True, "msg": "app_name: must be set"}), failures=1)
    found = site_drift(failed)
    assert found == {"hosts": {}, "error": "web: Validate: app_name: must be set"}
    assert "not checked" in status_screen(status_report({"data": DATABASE}, found))
    broken = {"stdout": "", "stderr": "a warning\nERROR! the first\n  at line 3"}
    assert site_drift(broken) == {"hosts": {}, "error": "ERROR! the first"}
    assert site_drift({})["error"] == "no output"


def test_screen_without_problems():
    drift = {"hosts": {"web": [], "data": []}, "error": ""}
    report = status_report({"web": STATE, "data": DATABASE}, drift)
    assert report["problems"] == []
    first, *lines = status_screen(report).splitlines()
    assert first == "2 hosts, no problems"
    text = "\n".join(lines)
    assert "r2       web  healthy  2025-11-29T00:00:00Z (3 d)  ada  c2" in text
    assert "600/1000 MiB" in text
    assert "14 from 3" in text
    assert "none" in text
    assert "backup" not in text  # no host has one
    assert text.splitlines()[-2:] == [
        "web   Debian GNU/Linux 13.2  1.26   -",
        "data  -                      -      8.4",
    ]
    assert max(map(len, lines)) < 140


@pytest.mark.parametrize(
    ("states", "drift", "problem"),
    [
        ({"web": STATE | {"problems": ["/ is 91 % full"]}}, {}, "web: / is 91 % full"),
        ({"web": {"unreachable": True, "msg": "timed out"}}, {}, "web: is unreachable"),
        ({"web": {"failed": True, "msg": "no sudo\n…"}}, {}, "web: has no status: no sudo"),
        ({"web": {}}, {}, "web: has no status: the play ended early"),
        (
            {"a": STATE, "b": STATE | {"app": APP | {"release": "r1"}}},
            {},
            "different releases are active: r1, r2",
        ),
        (
            {"web": STATE},
            {"hosts": {"web": ["one", "two", "two", "three", "four"]}},
            "web: site.yml would change 5 tasks: one, two, three …",
        ),
        (
            {"web": STATE},
            {"hosts": {}, "error": "web: Validate: x"},
            "site.yml --check failed: web: Validate: x",
        ),
    ],
)
def test_problems_are_first(states, drift, problem):
    report = status_report(states, drift)
    assert report["problems"] == [problem]
    lines = status_screen(report).splitlines()
    assert lines[0].endswith(" 1 problem")
    assert lines[1] == f"  ! {problem}"
    json.dumps(report)


def test_names_of_units_are_among_the_problems_only():
    down = HOST | {"units": {"nginx.service": "failed"}}
    text = status_screen(status_report({"web": STATE | {"host": down}}, {}))
    assert "1 down" in text
    assert "not checked" in text
