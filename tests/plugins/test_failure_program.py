"""The program that reports failed units: journal, command and webhook."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from helpers.imports import import_role_file

program = import_role_file("base/files/usr/local/lib/flaskstack/failure.py")
UNIT = "shop-worker@1.service"
RESTARTING = "ActiveState=activating\nLoadState=loaded\nNRestarts=3\nResult=signal\nTransient=no"


@pytest.fixture
def state(tmp_path, monkeypatch):
    """Return a function that sets the unit's properties and systemd's variables."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(program.socket, "gethostname", lambda: "web1")
    monkeypatch.setattr(program, "PAUSES", (0, 0, 0))

    def state(properties=RESTARTING, result="signal", status="KILL"):
        systemctl = tmp_path / "bin/systemctl"
        systemctl.write_text(f"#!/bin/sh\ncat <<'END'\n{properties}\nEND\n")
        systemctl.chmod(0o755)
        monkeypatch.setenv("MONITOR_SERVICE_RESULT", result)
        monkeypatch.setenv("MONITOR_EXIT_STATUS", status)

    state()
    return state


@pytest.fixture
def report(tmp_path, state):
    """Return a function that reports a failure of the unit, and returns the exit code."""
    (tmp_path / "states").mkdir()

    def report(**settings):
        settings = {"command": [], "webhook": "", "interval": 3600} | settings
        return program.main(settings, UNIT, tmp_path / "states")

    return report


@pytest.fixture
def webhook():
    """Yield a server with its `url`, the bodies that it `received`, and the `codes` it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            server.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(server.codes.pop(0) if server.codes else 200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.received, server.codes = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/token"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("result", "status", "reason"),
    [
        ("signal", "KILL", "was killed with signal KILL"),
        ("exit-code", "3", "exited with status 3"),
        ("watchdog", "ABRT", "hung, and the watchdog ended it"),
        ("oom-kill", "", "the kernel killed it for lack of memory"),
        ("protocol", "", "failed (protocol)"),
    ],
)
def test_journal_entry_has_the_reason_at_error_level(state, report, capsys, result, status, reason):
    state(result=result, status=status)
    assert report() == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"<3>{UNIT}: {reason}. It restarts (restart 3). Its log: journalctl")


def test_a_unit_that_stays_stopped_is_reported_as_such(state, report, capsys):
    state("ActiveState=failed\nLoadState=loaded\nNRestarts=0\nResult=timeout\nTransient=no", "", "")
    assert report() == 0
    assert "did not start or stop in time. It stays stopped." in capsys.readouterr().out


@pytest.mark.parametrize(
    "properties",
    [
        "ActiveState=inactive\nLoadState=not-found",
        RESTARTING.replace("Transient=no", "Transient=yes"),
    ],
)
def test_commands_of_the_operator_are_not_reported(state, report, capsys, properties):
    state(properties)
    assert report(command=["false"]) == 0
    assert capsys.readouterr().out == ""


def test_command_gets_the_failure(tmp_path, report):
    script = f'cat >{tmp_path}/input; echo "$FAILURE_UNIT $FAILURE_RESULT" >{tmp_path}/environment'
    assert report(command=["sh", "-c", script]) == 0
    assert (tmp_path / "environment").read_text() == f"{UNIT} signal\n"
    event = json.loads((tmp_path / "input").read_text())
    assert (event["host"], event["restarts"], event["stopped"]) == ("web1", 3, False)


def test_webhook_is_called_once_per_interval_and_counts_the_rest(report, webhook, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(program.time, "monotonic", lambda: now[0])
    for _ in range(5):
        assert report(webhook=webhook.url) == 0
    assert [event["failures"] for event in webhook.received] == [1]
    assert webhook.received[0]["text"].startswith(f"web1: {UNIT}: was killed")
    now[0] += 3601
    assert report(webhook=webhook.url) == 0
    assert webhook.received[1]["failures"] == 5
    assert webhook.received[1]["text"].endswith(" 5 failures since the last message.")


def test_webhook_is_tried_again(report, webhook):
    webhook.codes = [500, 502]
    assert report(webhook=webhook.url) == 0
    assert len(webhook.received) == 3


def test_failures_of_command_and_webhook_are_logged_without_the_url(report, webhook, capsys):
    webhook.codes = [500] * 3
    assert report(command=["false"], webhook=webhook.url) == 1
    warnings = capsys.readouterr().out.splitlines()[1:]
    assert warnings == [
        "<4>base_failure_command failed: CalledProcessError",
        "<4>base_failure_webhook failed: HTTPError",
    ]
    assert report(command=["no-such-program"]) == 0, "called again within the interval"
