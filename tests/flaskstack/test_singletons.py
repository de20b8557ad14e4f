"""Singletons run on one host and are stopped on all others, whatever their settings."""

import pytest

from flaskstack import settings as sets
from flaskstack.change import Change
from flaskstack.errors import ValidationError
from flaskstack.settings import Settings
from flaskstack.singletons import place

# Each active unit is a file. With the file `begins`, a timer starts a run just before it stops.
SYSTEMCTL = r"""#!/bin/bash
cd "${0%/*}/active" || exit
[[ $1 != --no-block ]] || shift
case $1 in
show) shift 2; for unit; do
    echo "Id=$unit"
    [[ -e $unit ]] && echo ActiveState=active || echo ActiveState=inactive
    echo
done ;;
start) touch "${@:2}" ;;
stop) rm -f "${@:2}"; [[ ! -e ../begins || ! " $* " =~ .timer ]] || touch shop-report.service ;;
esac
"""
WORKER, TICKER, REPORT = "shop-worker@1.service", "shop-ticker@1.service", "shop-report.timer"
SET = {"services": [WORKER, TICKER], "timers": [REPORT], "singletons": [TICKER, REPORT]}
PARAMS = {"app": "shop", "units": SET["singletons"]}


@pytest.fixture
def stamp(tmp_path, monkeypatch):
    """Return the file with the last run time of the report."""
    monkeypatch.setattr(sets, "STAMPS", tmp_path)
    monkeypatch.setattr("flaskstack.singletons.STAMPS", tmp_path)
    stamp = tmp_path / f"stamp-{REPORT}"
    stamp.touch()
    return stamp


@pytest.fixture
def active(tools, program, stamp, write_settings):
    """Return the directory of active units, on a host where all of them run."""
    program("systemctl", SYSTEMCTL)
    folder = tools / "active"
    folder.mkdir()
    for unit in (WORKER, TICKER, REPORT):
        (folder / unit).touch()
    Settings("shop").use(write_settings("first", SET))
    return folder


def names(folder):
    """Return the file names in a directory."""
    return {path.name for path in folder.iterdir()}


def move(here, **more):
    """Return whether a call moved something, and check that a second one moves nothing."""
    moved = place(PARAMS | {"here": here} | more)
    if not more.get("check"):
        assert place(PARAMS | {"here": here}) == {"changed": False, "moves": False}
    return moved["moves"]


def test_singletons_run_only_on_their_host(active, stamp):
    assert move(False)
    assert names(active) == {WORKER}
    assert not stamp.exists()
    assert move(True)
    assert names(active) == {WORKER, TICKER, REPORT}
    assert move(False)
    assert names(active) == {WORKER}


def test_check_mode_moves_nothing(active):
    assert move(False, check=True)
    assert move(True, check=True)
    assert names(active) == {WORKER, TICKER, REPORT}


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_running_timer_job_is_neither_interrupted_nor_duplicated(active, when):
    move(True)
    (active / "shop-report.service" if when == "before" else active.parent / "begins").touch()
    with pytest.raises(ValidationError, match=r"still runs here.*Nothing was moved"):
        place(PARAMS | {"here": False})
    assert names(active) == {WORKER, TICKER, REPORT, "shop-report.service"}
    assert Settings("shop").marker.exists()


@pytest.mark.usefixtures("active")
def test_settings_include_singletons_only_on_their_host(tmp_path):
    change = Change({"app": "shop", "root": str(tmp_path)})
    current = Settings("shop").current()
    assert change.processes(current) == ([WORKER], [])
    move(True)
    assert change.processes(current) == ([WORKER, TICKER], [REPORT])
