"""What role gunicorn's module app_processes stops, removes and restarts."""

import importlib.util
import os

import pytest

from repository import ROOT

SPEC = importlib.util.spec_from_file_location(
    "app_processes", ROOT / "roles/gunicorn/library/app_processes.py"
)
module = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(module)

SHOWN = """\
Id=shop-worker@1.service
ActiveState=active
Slice=shop-processes.slice
NeedDaemonReload=no
ActiveEnterTimestampMonotonic=5000000

Id=shop-report.service
ActiveState=activating
Slice=shop-timers.slice
NeedDaemonReload=no
ActiveEnterTimestampMonotonic=0

Id=shop-report.timer
ActiveState=active
NeedDaemonReload=no
ActiveEnterTimestampMonotonic=5000000

Id=shop-web@a.service
ActiveState=active
Slice=shop.slice
NeedDaemonReload=no
ActiveEnterTimestampMonotonic=5000000

Id=shop-backup.service
ActiveState=inactive
Slice=system.slice
NeedDaemonReload=no
ActiveEnterTimestampMonotonic=0

Id=shop-backup.timer
ActiveState=active
NeedDaemonReload=no
ActiveEnterTimestampMonotonic=0
"""
REPORT = {"shop-report.timer", "shop-report.service"}


@pytest.fixture
def shown():
    return module.units_in(SHOWN)


def test_what_is_declared_no_more_is_stopped_its_timer_first(shown):
    stopped = module.not_declared(shown, "shop", set())
    assert stopped == ["shop-report.timer", "shop-report.service", "shop-worker@1.service"]
    assert module.not_declared(shown, "shop", REPORT) == ["shop-worker@1.service"]


def test_what_has_ended_is_not_stopped(shown):
    shown["shop-worker@1.service"]["ActiveState"] = "inactive"
    assert module.not_declared(shown, "shop", REPORT) == []


@pytest.fixture
def folder(tmp_path):
    for name, text in {
        "shop-worker@.service": "Slice=shop-processes.slice",
        "shop-report.service": "Slice=shop-timers.slice",
        "shop-report.timer": "OnCalendar=daily",
        "shop-web@.service": "Slice=shop.slice",
        "shop-backup.service": "Type=oneshot",
        "shop-backup.timer": "OnCalendar=daily",
        "shopping-x@.service": "Slice=shopping-processes.slice",
    }.items():
        (tmp_path / name).write_text(f"[Service]\n{text}\n")
        os.utime(tmp_path / name, (100, 100))
    return tmp_path


def test_files_of_processes_are_known_by_their_slice(folder):
    assert module.own_files(folder, "shop") == {"shop-worker@.service", *REPORT}


@pytest.mark.parametrize(
    ("since_boot", "written", "found"), [(100, 104, False), (100, 106, True), (1000, 106, False)]
)
def test_what_began_before_its_file_was_written_is_outdated(
    shown, folder, since_boot, written, found
):
    """It began 5 seconds after the start of the machine."""
    os.utime(folder / "shop-worker@.service", (written, written))
    outdated = module.outdated(shown, ["shop-worker@1.service"], folder, since_boot)
    assert bool(outdated) is found


def test_what_systemd_has_not_read_again_is_outdated(shown, folder):
    shown["shop-worker@1.service"]["NeedDaemonReload"] = "yes"
    units = ["shop-worker@1.service", "shop-other@1.service"]
    assert module.outdated(shown, units, folder, 1000) == ["shop-worker@1.service"]


def test_file_of_an_instance():
    assert module.file_of("shop-worker@12.service") == "shop-worker@.service"
    assert module.file_of("shop-report.timer") == "shop-report.timer"
