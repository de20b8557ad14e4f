"""Calls of Ansible on a host, with parameters and results in JSON."""

from __future__ import annotations

import grp
import io
import json
import os
from functools import partial, partialmethod

import pytest

from flaskstack import calls, change, settings
from flaskstack.app_dir import AppDir
from flaskstack.deploy_lock import this_process
from flaskstack.errors import ValidationError
from flaskstack.units import Units

GROUP = grp.getgrgid(os.getgid()).gr_name


@pytest.fixture
def called(host, monkeypatch, capsys):
    """Return a function that calls like Ansible does."""
    for module in (calls, change):
        monkeypatch.setattr(module, "Units", partial(Units, host.run))

    def called(name, **params):
        usual = {"app": "shop", "root": str(host.root), "user": GROUP, "by": "ada@desk"}
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(usual | params)))
        assert calls.call(name) == 0
        return json.loads(capsys.readouterr().out)

    return called


@pytest.fixture
def applied(called, host):
    """Return a function that applies a settings set to the active release."""
    return lambda text, action="settings", **more: called(
        "apply", settings=host.set(text), action=action, **more
    )


def test_errors_and_failures_are_returned_as_json(called, monkeypatch):
    def refuse(params):
        raise ValidationError(
            "app_python must be there, not https://ada:pw@x", 'app_python: "3.13"'
        )

    monkeypatch.setattr(calls, "gather", refuse)
    params = {"failed": True, "msg": "app_python must be there, not https://x"}
    assert called("gather") == params | {"example": 'app_python: "3.13"'}
    result = called("start", release="two", settings="gone")
    assert (result["failed"], result["step"]) == (True, "Find the release")
    assert 'two was not activated: it failed at "Find the release"' in result["msg"]


def test_calls_that_change_a_host_do_nothing_in_check_mode(called, host):
    before = sorted(host.root.rglob("*"))
    for name in calls.CALLS.keys() - set(calls.READS):
        assert called(name, check=True) == {"changed": False}
    assert sorted(host.root.rglob("*")) == before


def test_builds_run_one_after_the_other(called, host, monkeypatch):
    monkeypatch.setattr(AppDir, "locked", partialmethod(AppDir.locked, 0))
    monkeypatch.setattr("flaskstack.build.place", lambda params: {"changed": True})
    assert called("place") == {"changed": True}
    with host.app_dir.locked():
        assert "another process is changing shop" in called("place")["msg"]


def test_gather_reports_the_state_of_a_host(called, host):
    assert (
        called("gather")["current"]
        == called("gather")["slot"]
        == called("gather")["settings"]
        == ""
    )
    host.deploy("one", plan={"workers": 2})
    host.ship("two", "env-two")
    (host.root / "releases/.half").mkdir()
    (host.root / "environments/env/.complete").touch()
    result = called("gather")
    assert (result["current"], result["slot"], result["settings"]) == (
        "one",
        "a",
        host.set(plan={"workers": 2}),
    )
    assert sorted(result["releases"]) == ["one", "two"]
    assert result["environments"] == {"one": "env", "two": "env-two"}
    assert (result["installed"], result["plan"]) == (["env"], {"workers": 2})
    assert result["sets"] == [result["settings"]]
    assert [entry["release"] for entry in result["history"]] == ["one"]
    assert (result["changed"], result["python"]) == (False, {})


def same_units(host):
    """Write a settings set that differs from the current one only in its environment."""
    files = host.settings.files(host.settings.current()) | {"environment": "other"}
    return host.settings.write(files, {}, -1)


@pytest.mark.parametrize(
    "change",
    [
        lambda host: host.running.pop("shop-worker@1.service"),
        lambda host: host.running.pop("shop-web@a.socket"),
        lambda host: host.app_dir.assign_slot("b", "one"),
        lambda host: host.app_dir.begin_change(id="two"),
        lambda host: (settings.UNITS / "shop-web@a.service").write_text("other"),
        lambda host: (settings.UNITS / "shop-worker@.service").unlink(),
        lambda host: host.settings.use(host.set("second")),
        lambda host: host.settings.assign_slot("a", same_units(host)),
    ],
)
def test_a_host_is_settled_only_when_everything_is_installed_and_running(called, host, change):
    host.deploy("one")
    assert called("gather")["settled"] is True
    change(host)
    assert called("gather")["settled"] is False


FILES = {"environment": 'SET="new"\n', "units/shop.target": "x"}


def test_settings_are_written_and_compared_with_the_current_ones(called, host):
    host.deploy("one", "SET=old")
    params = {"files": FILES, "release": {"plan": {}}}
    dry = called("settings", **params, check=True)
    assert not host.settings.exists(dry["name"])
    result = called("settings", **params)
    assert result == dry
    assert host.settings.files(result["name"]) == FILES
    assert {"SET", "units/shop.target", "units/shop-worker@.service"} <= set(result["differences"])
    assert result["current"] == host.set("SET=old")
    assert called("gather")["settings"] == result["current"], "they are not in use yet"


def test_a_code_only_deploy_updates_health_settings_and_keeps_processes(called, host):
    host.deploy("one", plan={"workers": 2}, watch=0)
    params = {"release": {"watch": 7, "services": [], "timers": [], "plan": {}}}
    called("settings", files=FILES, code_only=True, **params)
    known = host.settings.release(host.settings.current())
    assert (known["watch"], known["plan"]) == (7, {"workers": 2})
    assert known["services"] == ["shop-worker@1.service"]


def test_settings_are_applied_to_the_active_release(applied, host):
    assert applied("second") == {"changed": False, "current": ""}
    host.deploy("one")
    assert applied("second", check=True) == {"changed": True, "current": "one"}
    assert host.serves() == ("one", "first")
    assert applied("second")["changed"] is True
    assert host.serves() == ("one", "second")
    host.log.clear()
    assert applied("second") == {"changed": False, "current": "one"}
    assert host.log == []
    host.running.pop("shop-mailer@1.service")
    assert applied("second")["changed"] is True
    assert host.serves() == ("one", "second")
    assert applied("dies")["failed"] is True
    assert host.serves() == ("one", "second")


def test_a_rotation_removes_settings_with_old_secrets(applied, host, monkeypatch):
    host.deploy("one", "first")
    host.deploy("one", "kept")
    applied("second")
    assert host.sets() == ["kept", "second"]
    with monkeypatch.context() as patches:
        patches.setattr(settings.Settings, "prune", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            applied("third", "rotation")
    host.change("", "").recover()
    host.set("never in use")
    assert applied("third", "rotation")["changed"] is False
    assert host.sets() == ["third"]


def test_the_lock_is_acquired_reported_and_released(called, host):
    holder = {"by": "ada@desk", "controller": "desk", "pid": 1, "running": [1], "release": "one"}
    ours = {"holder": holder, "timeout": 60}
    other = {"holder": holder | {"controller": "other", "by": "bob@lab"}, "timeout": 60}
    assert called("gather", lock=ours)["changed"] is False
    assert "ada@desk has been deploying one" in called("gather", lock=other)["msg"]
    assert "replaces another: ada@desk" in called("lock", **other, force=True)["warnings"][0]
    called("unlock", **ours)
    assert (host.root / "deploy.json").exists()
    called("unlock", **other)
    assert not (host.root / "deploy.json").exists()


def test_a_deploy_that_is_undone_releases_its_lock(called, host):
    host.deploy("one")
    ours = {"holder": this_process("ada@desk", "two"), "timeout": 60}
    called("lock", **ours)
    switched = host.deploy("two", "second")
    params = {"release": "two", "settings": host.set("second"), "lock": ours}
    other = ours | {"holder": ours["holder"] | {"pid": 1}}
    refused = called("undo", **params | {"lock": other}, switched=switched)
    assert (refused["current"], refused["changed"]) == ("two", False), "another's deploy goes on"
    assert called("undo", **params, switched=switched)["current"] == "one"
    assert not (host.root / "deploy.json").exists()
    assert host.serves() == ("one", "first")
