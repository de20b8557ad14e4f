"""Background processes: units, schedules and defaults."""

import subprocess

import pytest

from processes import (
    active_processes,
    invalid_schedules,
    process_services,
    process_timers,
    settings_templates,
    singleton_units,
)

WORKER = {"name": "worker", "command": "x", "instances": 2}
TICKER = {"name": "ticker", "command": "x", "singleton": True}
NIGHTLY = {"name": "nightly", "command": "x", "schedule": "daily"}
OFF = {"name": "off", "command": "x", "instances": 0}


def test_units_of_processes():
    processes = active_processes([WORKER, TICKER, NIGHTLY, OFF])
    services = ["shop-worker@1.service", "shop-worker@2.service", "shop-ticker@1.service"]
    assert process_services(processes, "shop") == services
    assert process_timers(processes, "shop") == ["shop-nightly.timer"]


def test_singletons_are_services_and_timers():
    processes = active_processes([WORKER, TICKER, NIGHTLY | {"singleton": "yes"}])
    assert singleton_units(processes, "shop") == ["shop-ticker@1.service", "shop-nightly.timer"]


def test_scheduled_process_has_two_unit_files():
    worker, nightly = active_processes([WORKER, NIGHTLY])
    file = {"path": "files/local.py", "src": "/inventory/local.py.j2"}
    found = settings_templates([worker, nightly], "shop", [file])
    units = [each for each in found if "vars" in each]
    assert [(each["path"], each["src"]) for each in units] == [
        ("units/shop-worker@.service", "units/process@.service.j2"),
        ("units/shop-nightly.service", "units/process.service.j2"),
        ("units/shop-nightly.timer", "units/process.timer.j2"),
    ]
    assert [each["vars"]["process"] for each in units] == [worker, nightly, nightly]
    assert found[-1] == file


def test_omitted_options_have_defaults():
    (here,) = active_processes([WORKER])
    assert (here["stop_signal"], here["stop_timeout"], here["catch_up"]) == ("SIGTERM", 60, True)


RIGHT = [
    "minutely",
    "daily UTC",
    "*:0/5",
    "03:30",
    "03:30 Europe/Berlin",
    "Sat",
    "Mon..Fri",
    "Mon,Wed 03:30",
    "mon..thu,sat 3:00",
    "mon-fri 3:00",
    "Mon..Fri 8..18:00",
    "Mon 12-25 3:00",
    "2026-01-01",
    "12-25",
    "*-*-01 03:00:00",
    "*-*~1 03:00",
    "2003-02..04-05",
    "*:*:0/2",
    "*:*:0.5",
    "9..17/2:00",
]
WRONG = ["*/5 * * * *", "@daily", "*:*/5", "weekly 3", "3", "every day", "at 3:00"]


@pytest.mark.parametrize("schedule", RIGHT)
def test_schedules_of_systemd_are_accepted(schedule):
    assert invalid_schedules([NIGHTLY | {"schedule": schedule}]) == []


@pytest.mark.parametrize("schedule", WRONG)
def test_other_schedules_are_rejected(schedule):
    assert invalid_schedules([NIGHTLY | {"schedule": schedule}]) == [schedule]


@pytest.mark.parametrize("schedule", RIGHT + WRONG)
def test_systemd_accepts_the_same_schedules(schedule):
    command = ["systemd-analyze", "calendar", "--", schedule]
    result = subprocess.run(command, capture_output=True, check=False)
    assert (result.returncode == 0) == (schedule in RIGHT)
