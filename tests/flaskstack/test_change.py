"""A release and its settings are activated together, or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from itertools import count
from unittest import mock

import pytest

from flaskstack import settings, units
from flaskstack.app_dir import AppDir
from flaskstack.errors import DeployError
from flaskstack.units import Health, Units
from helpers.simulated_host import Cut, Host

WORKER, MAILER = "shop-worker@1.service", "shop-mailer@1.service"
STRATEGIES = pytest.mark.parametrize("strategy", ["switch", "restart"])


def fail(host, *what, **options):
    """Run a failing deploy, and return the error."""
    with pytest.raises(DeployError) as raised:
        host.deploy(*what, **options)
    return raised.value


@STRATEGIES
def test_a_release_and_its_settings_are_activated_together(host, strategy):
    assert host.deploy("one", strategy=strategy)["previous"] == ""
    assert host.serves() == ("one", "first")
    result = host.deploy("two", "second", strategy=strategy)
    assert host.serves() == ("two", "second")
    assert (result["current"], result["previous"]) == ("two", "one")
    assert (result["settings"], result["previous_settings"]) == (host.set("second"), host.set())
    assert host.app_dir.live() == ("b" if strategy == "switch" else "a")
    host.deploy("two", "second third", strategy=strategy)  # only the settings change
    assert host.serves() == ("two", "second third")
    assert host.app_dir.previous() == "one"
    last = host.app_dir.history()[-1]
    assert (last["settings"], last["previous_settings"]) == (
        host.set("second third"),
        host.set("second"),
    )


def test_the_previous_instance_stops_last_and_handles_its_waiting_requests(host):
    host.deploy("one")
    host.log.clear()
    host.queue = [2, 0, 1, 0, 0, 0]
    host.deploy("two")
    old = [line for line in host.log if "@a" in line]
    assert old == ["stop shop-web@a.socket", "stop shop-web@a.service"]
    assert host.log.index(f"restart {WORKER}") < host.log.index(old[0])
    assert host.queue == []


def test_only_changed_background_processes_restart(host):
    both = {"services": [WORKER, MAILER], "timers": []}
    host.deploy("one", **both)
    name = host.set(**both)
    files = host.settings.files(name)
    files["units/shop-worker@.service"] += "Nice=5\n"
    host.log.clear()
    host.activate("one", host.settings.write(files, host.settings.release(name), -1))
    assert "Nice=5" in (settings.UNITS / "shop-worker@.service").read_text()
    assert host.serves() == ("one", "first")
    assert [line for line in host.log if "restart" in line] == [f"restart {WORKER}"]


FAILURES = {
    "dies": "Start the release",
    "sick": "Start the release",
    "redirects": "Start the release",
    "tires": "Watch the release",
    "idles": "Restart the background processes",
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("new", ["{}, first", "{}, {} second", "one, {} first", "one, {} second"])
@STRATEGIES
def test_a_failed_deploy_leaves_everything_unchanged(host, strategy, new, failure):
    release, text = new.format(failure, failure).split(", ")
    host.deploy("zero", strategy=strategy)
    host.deploy("one", strategy=strategy)
    host.log.clear()
    host.health_checks = 0
    error = fail(host, release, text, strategy=strategy, watch=0.001)
    assert host.serves() == ("one", "first")
    assert host.app_dir.previous() == "zero"
    assert host.releases() == ["one", "zero"]
    assert [entry["release"] for entry in host.app_dir.history()] == ["zero", "one"]
    assert f'{release} was not activated: it failed at "{error.step}":' in str(error)
    if strategy == "switch":
        assert error.step == FAILURES[failure]
        touched = [line for line in host.log if "@b" in line or "worker" in line]
        assert failure == "idles" or not touched
        assert failure != "idles" or not any("kill" in line for line in host.log)


def test_the_target_starts_only_with_the_first_release(host):
    """Starting it later would restart units that are being stopped."""
    host.deploy("one")
    assert "shop.target" in host.running
    host.stop("shop.target")
    host.deploy("two")
    assert "shop.target" not in host.running


@pytest.mark.parametrize("release", ["dies", "idles"])
@STRATEGIES
def test_a_failed_first_release_leaves_no_running_units(host, release, strategy):
    fail(host, release, strategy=strategy)
    assert host.serves() == ("", "")
    assert not (host.root / "web.sock").is_symlink()
    assert host.releases() == []


def test_a_failed_restart_of_the_same_release_keeps_requests_and_processes(host, monkeypatch):
    host.deploy("one")
    start, starts = host.start, count()

    def fail_once(unit):
        start(unit)
        if unit == WORKER and next(starts) == 0:
            host.running[unit] |= {"ActiveState": "activating", "SubState": "auto-restart"}

    monkeypatch.setattr(host, "start", fail_once)
    host.log.clear()
    fail(host, "one", action="restart")
    assert host.serves() == ("one", "first")
    assert not any("kill" in line for line in host.log), "requests of the new instance are lost"


def test_a_redirect_at_the_health_path_fails_immediately(host):
    host.deploy("one")
    host.health_checks = 0
    error = fail(host, "redirects", timeout=60)
    assert host.health_checks == 1
    assert "redirects the health path" in str(error)
    assert "GET /: 302 Found to /login" in str(error)
    assert "app_health_path" in str(error)


def test_a_release_is_warmed_up_before_it_gets_requests(host, monkeypatch):
    warmed = []
    monkeypatch.setattr(units, "children", lambda pid: {"7", "8"})
    monkeypatch.setattr(
        Health, "warm_up", lambda _, *params: warmed.append((host.app_dir.serving(), *params))
    )
    host.deploy("one")
    host.deploy("two", warm_up=["/", "/notes"])
    assert warmed[1:] == [("one", host.app_dir.socket("b"), ["/", "/notes"], 8)]


def test_an_instance_that_warms_up_is_watched_without_health_checks(host, monkeypatch):
    """A busy instance answers slowly, however long the warm-up takes."""
    warm, checks = threading.Event(), []

    def sleep(seconds):
        checks.append(host.health_checks)
        if len(checks) == 5:
            warm.set()

    host.deploy("one")
    monkeypatch.setattr(Health, "warm_up", lambda *_: warm.wait(10))
    monkeypatch.setattr(units.time, "sleep", sleep)
    host.health_checks = 0
    fail(host, "tires", warm_up=["/"])
    assert checks[:5] == [1] * 5
    assert host.serves() == ("one", "first")


def test_a_background_process_may_finish_its_job_before_it_is_replaced(host):
    host.deploy("one")
    host.busy = 5
    host.deploy("two")
    assert host.busy == 0
    assert host.serves() == ("two", "first")


def test_the_next_deploy_removes_an_instance_that_does_not_stop(host, monkeypatch):
    host.deploy("one")
    results = [None, DeployError("stop", "it did not stop")]
    with monkeypatch.context() as patch:
        patch.setattr(Units, "wait_stopped", mock.Mock(side_effect=results))
        assert "was not healthy" in str(fail(host, "sick"))
    assert host.app_dir.pending()
    host.deploy("two")
    assert host.serves() == ("two", "first")
    assert host.releases() == ["one", "two"]


def test_units_in_the_inactive_slot_are_stopped_before_a_deploy(host):
    host.running["shop-web@a.service"] = {"ActiveState": "active", "release": "other"}
    host.deploy("one")
    assert host.serves() == ("one", "first")


def test_a_removed_timer_loses_its_last_run_time(host):
    host.deploy("one")
    for timer in ("nightly", "other"):
        (settings.STAMPS / f"stamp-shop-{timer}.timer").touch()
    host.deploy("one", "second")
    assert [path.name for path in settings.STAMPS.iterdir()] == ["stamp-shop-other.timer"]


def test_a_deploy_can_change_the_strategy(host):
    for strategy in ("switch", "switch", "restart", "switch"):
        host.deploy(f"by-{len(host.log)}", strategy=strategy)
        host.serves()
    assert host.app_dir.live() == "a"


# Interruptions: before each step of a deploy in turn, until no step is left.


def interrupted_deploys(tmp_path, monkeypatch, before, strategy):
    """Yield hosts with an interrupted deploy of `two`, and whether `two` was already active."""
    for after in count():
        for name in ("ETC", "UNITS", "STAMPS"):
            monkeypatch.setattr(settings, name, tmp_path / str(after) / name.lower())
        host = Host(tmp_path / str(after))
        monkeypatch.setattr(Health, "check", lambda _, path, keep, host=host: host.answer(path))
        if before:
            host.deploy("one", strategy=strategy)
        host.ship("two")
        new = host.set("second", strategy=strategy)
        try:
            with host.cut(after):
                host.activate("two", new)
        except Cut:
            if strategy == "switch":
                yield host, host.app_dir.live() == ("b" if before else "a")
            else:
                finished = host.app_dir.pending().get("done", False)
                last = [entry["release"] for entry in host.app_dir.history()][-1:]
                yield host, finished or last == ["two"]
        else:
            assert after > 20
            return


@pytest.mark.parametrize("before", ["first", ""])
@STRATEGIES
@pytest.mark.parametrize("then", ["two", "dies", "undo", "boot"])
@pytest.mark.usefixtures("host")
def test_the_next_deploy_or_boot_cleans_up_after_an_interrupted_deploy(
    tmp_path, monkeypatch, before, strategy, then
):
    for host, active in interrupted_deploys(tmp_path, monkeypatch, before, strategy):
        expected = ("two", "second") if active else ("one", before) if before else ("", "")
        pending = host.app_dir.pending()
        if then == "undo":
            host.change("two", host.set("second")).undo({})
        elif then == "boot":
            host.boot()
        elif then == "dies":
            fail(host, "dies", strategy=strategy)
        else:
            host.deploy("two", "second", strategy=strategy)
            expected = ("two", "second")
        assert host.serves() == expected
        entries = [entry["release"] for entry in host.app_dir.history()].count("two")
        assert entries == active + (then == "two")
        kept = then == "boot" or (then == "dies" and not pending)
        assert ("two" in host.releases()) == (entries > 0 or kept)
        if then == "boot":
            host.deploy("three", "first", strategy=strategy)
            assert host.serves() == ("three", "first")


# Rollbacks on other hosts, the history, and files of earlier deploys.


@STRATEGIES
def test_a_host_that_switched_rolls_back_with_the_others(host, strategy):
    host.deploy("one", strategy=strategy)
    for release in ("two", "one"):
        switched = host.deploy(release, "second", strategy=strategy)
        new = host.set("second", strategy=strategy)
        assert host.change(release, new).undo(switched)["current"] == "one"
        assert host.serves() == ("one", "first")
    assert host.app_dir.history()[-1]["action"] == "rollback"


def test_a_rollback_uses_new_settings_when_the_previous_ones_are_gone(host):
    host.deploy("one")
    switched = host.deploy("two", "second")
    host.settings.prune(set())
    host.change("two", host.set("second")).undo(switched)
    assert host.serves() == ("one", "second")


@pytest.mark.parametrize(("release", "kept"), [("two", ["one"]), ("one", ["one", "two"])])
def test_a_release_that_was_never_active_is_removed_when_its_deploy_fails(host, release, kept):
    host.deploy("one")
    host.ship("two")
    host.change(release, host.set("second")).undo({})
    assert host.releases() == kept
    assert host.serves() == ("one", "first")


def test_a_release_that_was_once_active_is_kept_when_it_fails(host):
    host.deploy("one")
    host.ship("sick")
    with (host.root / "deploys.jsonl").open("a") as file:
        file.write(json.dumps({"release": "sick", "previous": "", "time": "2026"}) + "\n")
    fail(host, "sick", keep=9)
    assert host.releases() == ["one", "sick"]


@STRATEGIES
def test_a_missing_release_or_settings_set_is_not_started(host, strategy):
    host.deploy("one")
    host.ship("two")
    new = host.set("second", strategy=strategy)
    for release, name in (("three", new), ("two", "gone"), ("two", "")):
        with pytest.raises(DeployError, match="is not on this host"):
            host.activate(release, name)
        assert host.serves() == ("one", "first")


def test_only_a_started_release_can_be_switched_to(host):
    host.deploy("one")
    host.ship("two")
    with pytest.raises(DeployError, match="it is not started on this host"):
        host.change("two", host.set()).switch()
    host.change("two", host.set()).start()
    with pytest.raises(DeployError, match="it is not started on this host"):
        host.change("two", host.set("second")).switch()
    host.change("two", host.set("second")).undo({})
    assert host.serves() == ("one", "first")


def test_the_history_records_who_deployed_which_commit(host):
    host.deploy("one", commit="abc")
    host.deploy("two", commit="def")
    host.deploy("one", action="rollback")
    with (host.root / "deploys.jsonl").open("a") as file:
        file.write('{"time": "20')  # interrupted
    names = ("release", "previous", "commit", "action", "by")
    assert [[entry[name] for name in names] for entry in host.app_dir.history()] == [
        ["one", "", "abc", "deploy", "ada@desk"],
        ["two", "one", "def", "deploy", "ada@desk"],
        ["one", "two", "abc", "rollback", "ada@desk"],
    ]


def test_unused_files_are_removed(host):
    host.ship("old", "old-env")
    host.deploy("one")
    (host.root / "releases/.half").mkdir()
    (host.settings.sets / ".half").mkdir()
    (host.settings.sets / "..half.gone/x").mkdir(parents=True)
    host.set("never in use")
    for number, release in enumerate(("two", "three")):
        result = host.deploy(release, f"first {number}", keep=2)
    assert host.releases() == ["three", "two"]
    assert "releases/one" in result["removed"]
    assert [path.name for path in (host.root / "environments").iterdir()] == ["env"]
    assert host.sets() == ["first 0", "first 1"]


def test_a_release_with_running_processes_is_kept(host):
    host.ship("busy", "busy-env")
    wait = [sys.executable, "-c", "input()"]
    folder = host.root / "releases/busy"
    with subprocess.Popen(wait, cwd=folder, stdin=subprocess.PIPE) as process:
        host.deploy("one", keep=2)
        host.deploy("two", keep=2)
        assert "busy" in host.releases()
        assert (host.root / "environments/busy-env").is_dir()
        process.communicate(b"\n")
    host.deploy("three", keep=2)
    assert "busy" not in host.releases()


def test_only_one_process_changes_a_host(host):
    with (
        host.app_dir.locked(),
        pytest.raises(DeployError, match="another process"),
        AppDir(host.root, "shop").locked(0),
    ):
        pass
    with AppDir(host.root, "shop").locked(0):
        pass
