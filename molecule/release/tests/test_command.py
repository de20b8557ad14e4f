"""The operator's command on the host, which works without a controller."""

from __future__ import annotations

import json

import pytest

from helpers.clients import live_web
from helpers.wait import wait_for


@pytest.fixture
def command(host):
    """Return a function that runs `flaskstack sample …` on the host."""
    return lambda words: host.run(f"flaskstack sample {words}")


@pytest.fixture
def ask(host):
    """Return a function that returns the output of `flaskstack sample … --json`."""
    return lambda words: json.loads(host.check_output(f"flaskstack sample {words} --json"))


def test_status_and_releases_report_the_active_release(command, ask, home):
    status = ask("status")
    assert status["release"] == home.release
    assert command("status").rc == 0
    assert home.release in command("status").stdout
    assert home.release in command("releases").stdout
    assert ask("releases")


def test_status_fails_when_a_process_is_down(command, host):
    host.check_output("systemctl stop sample-worker@1")
    try:
        stopped = command("status")
        assert stopped.rc == 1
        assert "sample-worker@1" in stopped.stdout
    finally:
        host.check_output("systemctl start sample-worker@1")


def test_rollback_and_restart_lose_no_request(command, under_load, operator, version, home, host):
    done = operator.deploy(version())
    assert done.code == 0, done.output
    before, web = home.release, live_web(host, "sample")
    with under_load("restart on the host", share=0.5):
        done = command("restart")
        assert done.rc == 0, done.stderr
        assert live_web(host, "sample") != web
        assert home.release == before
    with under_load("rollback on the host", share=0.5):
        done = command("rollback")
        assert done.rc == 0, done.stderr
    assert home.release != before
    with under_load("rollback to a release", share=0.5):
        done = command(f"rollback {before}")
        assert done.rc == 0, done.stderr
    assert home.release == home.worker == before
    assert home.last["action"] == "rollback"


def test_commands_are_rejected_during_a_deploy(command, ask, operator, version):
    with operator.playing("deploy", app_source_folder=str(version())):
        wait_for(lambda: "deploys a new release" in ask("status")["deploy"], 60)
        refused = command("rollback")
    assert refused.rc == 1
    assert "Another deploy holds the lock" in refused.stderr


def test_run_and_logs(command):
    shown = command("run sh -c 'exit 7'")
    assert shown.rc == 7
    assert command("run printenv APP_ENV").stdout == "production\n"
    assert "unicorn" in command("logs --grep=gunicorn --lines=1 --no-pager").stdout


def test_maintenance_returns_503_except_for_the_health_path(command, site):
    assert command("maintenance on").rc == 0
    try:
        closed = site.get("/")
        assert closed.status_code == 503
        assert int(closed.headers["Retry-After"]) > 0
        assert site.get("/readyz").status_code == 200
    finally:
        assert command("maintenance off").rc == 0
    assert site.get("/").status_code == 200
