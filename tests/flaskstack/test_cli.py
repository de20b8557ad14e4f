"""The operator's command, on a simulated host or with programs in temporary directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from flaskstack import cli, host_status, status, units
from flaskstack.deploy_lock import Lock, this_process
from flaskstack.settings import Settings

WORKER, TIMER = "shop-worker@1.service", "shop-nightly.timer"


@pytest.fixture(autouse=True)
def operator(monkeypatch):
    """Run as root, called by ada with sudo."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("SUDO_USER", "ada")


@pytest.fixture
def shop(host, monkeypatch, capsys):
    """Return a function that runs a command; `one` and then `two` were deployed."""
    monkeypatch.setattr(units.Units.__init__, "__defaults__", (host.run,))
    monkeypatch.setattr(cli.signal, "signal", lambda *_: None)
    for release, text in (("one", "first"), ("two", "second")):
        host.deploy(release, text, root=str(host.root), commit=f"c{release}")

    def shop(*words):
        code = cli.main(["shop", *words])
        output = capsys.readouterr()
        return code, output.out + output.err

    shop.host = host
    return shop


def answer(shop, *words):
    code, output = shop(*words, "--json")
    return code, json.loads(output)


def test_status_of_a_healthy_app(shop):
    code, output = answer(shop, "status")
    assert (code, output["healthy"], output["release"], output["commit"]) == (
        0,
        True,
        "two",
        "ctwo",
    )
    assert (output["slot"], output["by"], output["health"]) == ("b", "ada@desk", "GET /: 200")
    assert output["settings"] == shop.host.set("second", root=str(shop.host.root))
    assert output["units"]["shop-hourly.service"] == "waiting"
    assert output["hint"] == ""
    shop.host.journal = "A process of this unit has been killed by the OOM killer.\n"
    code, output = shop("status")
    assert output.startswith("shop")
    assert all(
        word in output
        for word in ("healthy", "two", "ada@desk", "shop-mailer@1.service", "_memory: 300")
    )


@pytest.mark.parametrize(
    "unit", ["shop-mailer@1.service", "shop-hourly.service", "shop-web@b.service"]
)
def test_status_of_an_unhealthy_app(shop, unit):
    shop.host.running[unit] = {"ActiveState": "failed", "release": "sick"}
    code, output = answer(shop, "status")
    assert (code, output["healthy"], output["units"][unit]) == (1, False, "failed")
    assert "UNHEALTHY" in shop("status")[1]


def test_status_without_an_active_release(shop):
    (shop.host.root / "web.sock").unlink()
    assert shop("status")[0] == 1


def test_releases(shop):
    _, output = answer(shop, "releases")
    serves = {row["release"]: row["active"] for row in output["releases"]}
    assert serves == {"one": "", "two": "in slot b"}
    header, _, *rows = shop("releases")[1].splitlines()
    assert header.split()[:3] == ["release", "active", "time"]
    row = next(row for row in rows if row.startswith("two"))
    assert row.split()[-3:] == ["ctwo", "ada@desk", "deploy"]


@pytest.mark.parametrize("words", [["rollback"], ["rollback", "one"]])
def test_a_rollback_restores_the_release_with_its_settings(shop, words):
    for release, text in (("one", "a"), ("two", "b")):
        folder = shop.host.root / "releases" / release / "db/migrations"
        folder.mkdir(parents=True)
        (folder / f"{text}.sql").write_text("")
    code, output = shop(*words)
    assert (code, shop.host.serves()) == (0, ("one", "first"))
    assert output.startswith("one is active with settings")
    assert "with these migrations: db/migrations/b.sql" in output
    last = shop.host.app_dir.history()[-1]
    assert (last["action"], last["by"].partition("@")[0]) == ("rollback", "ada")
    assert not Lock(shop.host.root).holder()


def test_an_interrupted_command_is_undone(shop, monkeypatch):
    def interrupted(change):
        change.begin(change.app_dir.free(), "switch")
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Change, "start", interrupted)
    code, output = shop("restart")
    assert (code, shop.host.serves()) == (1, ("two", "second"))
    assert "interrupted" in output


@pytest.mark.parametrize("command", ["rollback", "restart"])
def test_a_running_deploy_is_not_interrupted_without_break_lock(shop, command):
    holder = this_process("bob@lap", "three") | {"controller": "elsewhere", "pid": 7}
    Lock(shop.host.root).acquire(holder)
    code, output = shop(command)
    assert (code, shop.host.serves()) == (1, ("two", "second"))
    assert "bob@lap has been deploying three since" in output
    assert "bob@lap has been deploying three" in answer(shop, "status")[1]["deploy"]
    assert shop(command, "--break-lock")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rollback", "three"], "no release three; there are: "),
        (["run"], "no command given"),
        (["maintenance", "on"], "nginx does not serve shop on this host"),
    ],
)
def test_invalid_commands_are_rejected(shop, monkeypatch, tmp_path, words, message):
    monkeypatch.setattr(cli, "MAINTENANCE", tmp_path)
    code, output = shop(*words)
    assert code == 1
    assert message in output
    assert cli.main(["other", "status"]) == 1


def test_without_root_the_sudo_command_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["shop", "run", "flask", "routes"]) == 77
    assert "sudo flaskstack shop run flask routes" in capsys.readouterr().err


def test_a_boot_cleans_up_after_a_power_cut(shop):
    shop.host.app_dir.begin_change(
        id="x",
        slot="a",
        live="b",
        serving="two",
        previous="one",
        strategy="switch",
        serving_settings=shop.host.settings.current(),
        settings="x",
    )
    assert shop("recover") == (0, "")
    assert shop.host.serves() == ("two", "second")


# Commands that use standard input and output run in a separate process.


@pytest.fixture
def flaskstack(root, write_settings, tmp_path):
    """Return a function that runs the program; release `one` is active."""
    Settings("shop").use(write_settings("first", {"root": str(root)}))
    package = os.path.dirname(cli.__file__)
    start = "import sys; from flaskstack import cli, settings; import os, pathlib; "
    start += f"settings.ETC = pathlib.Path({str(tmp_path / 'etc')!r}); os.geteuid = lambda: 0; "
    start += "sys.exit(cli.main())"
    command = [sys.executable, "-c", start, "shop"]

    def flaskstack(*words, **options):
        path = os.environ | {"PYTHONPATH": os.path.dirname(package)}
        return subprocess.Popen([*command, *words], env=path, text=True, **options)

    return flaskstack


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (["run", "--", "sh", "-c", "cat; pwd; exit 7"], "in\nROOT/releases/one\n"),
        (["run", "--release", "two", "sh", "-c", "cat; pwd; exit 7"], "in\nROOT/releases/two\n"),
    ],
)
def test_run_passes_input_output_and_exit_code(flaskstack, root, words, output):
    process = flaskstack(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.communicate("in\n")[0] == output.replace("ROOT", str(root))
    assert process.returncode == 7


def test_run_stops_its_unit_when_it_is_terminated(flaskstack, program, tools):
    program("systemctl", f'#!/bin/sh\necho "$@" >{tools}/stopped\ntouch {tools}/go\n')
    script = f"echo started; until test -e {tools}/go; do sleep 0.05; done"
    process = flaskstack(
        "run", "sh", "-c", script, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout.readline() == "started\n"
    process.terminate()
    assert process.wait(10) == 128 + 15
    process.stdout.close()
    stopped = (tools / "stopped").read_text()
    assert stopped == f"stop --no-block shop.run-{process.pid}-*.service\n"


def test_status_shows_the_host_and_its_problems(shop, monkeypatch):
    """The unit of an unhealthy app is named once, although it is also a failed unit of the host."""
    state = {"shop-mailer@1.service": "failed", "nginx.service": "failed"}
    monkeypatch.setattr(host_status, "units", lambda _: state)
    shop.host.running["shop-mailer@1.service"] = {"ActiveState": "failed"}
    _, output = answer(shop, "status")
    assert output["host"]["units"] == state
    own = "shop is UNHEALTHY: shop-mailer@1.service failed"
    assert [text for text in output["problems"] if "disk" not in text][:2] == [
        own,
        "nginx.service is failed",
    ]
    text = shop("status")[1]
    assert "PROBLEM" in text
    assert "memory" in text


def test_status_of_a_host_without_a_release(monkeypatch, tmp_path, write_settings, capsys):
    """A host with only the app's database."""
    monkeypatch.setattr(status, "FACTS", tmp_path)
    assert cli.main(["shop", "status"]) == 1
    assert "no such app on this host" in capsys.readouterr().err
    (tmp_path / "flaskstack_mysql_shop.fact").write_text("{}")
    assert cli.main(["shop", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["host"]["memory"]["total"] > 0


def test_metrics(shop, monkeypatch, tmp_path):
    monkeypatch.setattr(host_status, "METRICS", tmp_path)
    monkeypatch.setattr(status, "SLOW", tmp_path / "status.json")
    monkeypatch.setattr(host_status, "bans", lambda _: {'quoted"jail': 3})
    assert shop("metrics") == (0, "")
    own = (tmp_path / "shop_status.prom").read_text().splitlines()
    assert 'flaskstack_app_healthy{app="shop"} 1' in own
    expected = 'flaskstack_app_release_info{app="shop",release="two",commit="ctwo",slot="b"} 1'
    assert expected in own
    assert any(
        line.startswith('flaskstack_app_release_timestamp_seconds{app="shop"} 1') for line in own
    )
    assert 'flaskstack_site_errors{app="shop"} 0' in own
    host_file = (tmp_path / "host.prom").read_text().splitlines()
    assert 'flaskstack_bans{jail="quoted\\"jail"} 3' in host_file
    assert "flaskstack_security_updates 0" in host_file
    (tmp_path / "status.json").write_text(
        (tmp_path / "status.json").read_text().replace('"security": 0', '"security": 5')
    )
    shop("metrics")
    assert "flaskstack_security_updates 5" in (tmp_path / "host.prom").read_text().splitlines()
