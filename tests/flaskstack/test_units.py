"""The units of an app as reported by systemd, and the app's answers at its socket."""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from itertools import chain, cycle, repeat
from types import SimpleNamespace

import pytest

from flaskstack import stale, units
from helpers.wait import wait_for

WORKER = "shop-worker@1.service"
WEB = "shop-web@a.service"
ACTIVE = {"ActiveState": "active", "SubState": "running", "NRestarts": "0", "MainPID": "7"}


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        ({"ActiveState": "active", "SubState": "running"}, ""),
        ({"ActiveState": "activating", "SubState": "start"}, ""),
        ({"ActiveState": "deactivating", "SubState": "stop-sigterm", "Job": "7"}, ""),
        ({"ActiveState": "active", "NRestarts": "1"}, "u died"),
        (
            {"ActiveState": "activating", "SubState": "auto-restart", "Result": "signal"},
            "u died (signal)",
        ),
        ({"ActiveState": "failed", "Result": "exit-code"}, "u failed (exit-code)"),
        ({"ActiveState": "inactive", "SubState": "dead", "Result": "success"}, "u ended"),
        ({"ActiveState": "deactivating", "SubState": "stop-sigterm"}, "u is ending"),
    ],
)
def test_unit_failures_are_reported(unit, reason):
    assert units.failure_reason("u", unit) == reason


@pytest.mark.parametrize(
    ("text", "length"),
    [("40s", 40), ("1min 30s", 90), ("2h", 7200), ("500ms", 0.5), ("infinity", 90)],
)
def test_systemd_time_spans(text, length):
    assert units.seconds(text) == length


HEALTHZ = units.Health("/healthz", {"Host": "shop.example"}, 200, "")


@pytest.fixture
def serve(tmp_path):
    """Return a context manager that serves requests with a function and yields the socket path."""

    @contextmanager
    def serve(handle):
        handler = type("Handler", (socketserver.StreamRequestHandler,), {"handle": handle})
        path = str(tmp_path / "web.sock")
        with socketserver.ThreadingUnixStreamServer(path, handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=[0.01])
            thread.start()
            yield path
            server.shutdown()
            thread.join()

    return serve


@pytest.mark.parametrize(
    ("status", "body", "healthy"),
    [(200, "", True), (200, "^up to", True), (200, "^down", False), (204, "", False)],
)
def test_health_requests_look_like_those_of_nginx(serve, status, body, healthy):
    requests = []

    def handle(self):
        requests.append(self.request.recv(10_000))
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nup to date")

    health = units.Health("/healthz", {"Host": "shop.example"}, status, body)
    with serve(handle) as path:
        result, answer = health.check(path, units.Deadline(10))
    assert result is healthy
    assert answer.startswith("GET /healthz: 200 OK up to date")
    assert requests[0].startswith(b"GET /healthz HTTP/1.1\r\n")
    assert b"\r\nHost: shop.example\r\n" in requests[0]


def test_an_app_that_does_not_answer_is_unhealthy_at_the_deadline(tmp_path):
    path = str(tmp_path / "web.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert HEALTHZ.check(path, units.Deadline(0)) == (False, "GET /healthz: no answer")
    healthy, answer = HEALTHZ.check(path + "x", units.Deadline(10))
    assert (healthy, answer[:34]) == (False, "GET /healthz: FileNotFoundError: [")


def test_warm_up_requests_are_simultaneous_and_any_answer_is_accepted(serve):
    paths, together = [], threading.Barrier(4)

    def handle(self):
        paths.append(self.rfile.readline().split()[1].decode())
        together.wait(10)  # fails unless all requests are simultaneous
        if len(paths) > 4:
            self.wfile.write(b"HTTP/1.0 500 No\r\n\r\n")

    with serve(handle) as path:
        HEALTHZ.warm_up(path, ["/", "/notes"], 4)
    assert paths == ["/"] * 4 + ["/notes"] * 4
    assert not together.broken


def test_a_warm_up_request_does_not_wait_for_an_endless_answer(serve):
    disconnected = threading.Event()

    def handle(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        with suppress(OSError):
            for _ in range(100):  # ten seconds
                self.wfile.write(b"data: on\n\n")
                time.sleep(0.1)
            return
        disconnected.set()

    with serve(handle) as path:
        HEALTHZ.warm_up(path, ["/"], 1)
        assert disconnected.wait(5)


def test_workers_are_the_children_of_gunicorn():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert str(process.pid) in units.children(str(os.getpid()))
        process.communicate(b"\n")
    assert str(process.pid) not in units.children(str(os.getpid()))


@pytest.fixture
def watch(monkeypatch):
    """Return the watch of a healthy instance whose units are always active."""
    monkeypatch.setattr(units.time, "sleep", lambda seconds: None)
    healthy = SimpleNamespace(check=lambda socket_path, keep_waiting: (True, "200"))
    return units.Watch(SimpleNamespace(show=lambda names: dict.fromkeys(names, ACTIVE)), healthy)


def test_a_crash_is_detected_however_long_the_imports_take(watch, monkeypatch):
    states = chain(repeat(ACTIVE, 8), repeat(ACTIVE | {"NRestarts": "1"}))
    watch.remember(WORKER)
    watch.units.show = lambda names: dict.fromkeys(names, next(states))
    sleeping = cycle([True, True, False])  # a check may fall between two imports
    monkeypatch.setattr(units, "is_sleeping", lambda pid: next(sleeping))
    with pytest.raises(units.DeployError, match="died"):
        watch.stay_healthy("Restart", [WORKER], "web", "socket_path", 0, [WORKER])


def test_a_process_that_waits_for_work_has_started(watch, monkeypatch):
    watch.remember(WORKER)
    monkeypatch.setattr(units, "is_sleeping", lambda pid: True)
    watch.stay_healthy("Restart", [WORKER], "web", "socket_path", 0, [WORKER])


def test_a_waiting_process_is_asleep_and_a_computing_one_is_not():
    for code, waits in (("input()", True), ("while True: pass", False)):
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
            wait_for(
                lambda one=process, wanted=waits: units.is_sleeping(str(one.pid)) is wanted, 10
            )
            process.kill()
    assert not units.is_sleeping(str(process.pid))


@pytest.mark.parametrize(
    ("message", "reason"),
    [  # messages of Gunicorn 27
        ("[7] [INFO] Worker exiting (pid: 7)", ""),
        ("[1] [ERROR] Worker (pid:5) exited with code 1.", ""),
        ("[1] [ERROR] Worker (pid:7) exited with code 1.", f"{WEB} lost 1 of its workers"),
        (
            "[1] [ERROR] Worker (pid:7) was sent SIGKILL! Perhaps out of memory?",
            f"{WEB} lost 1 of its workers",
        ),
        ("[1] [CRITICAL] WORKER TIMEOUT (pid:7)", f"{WEB} lost 1 of its workers"),
    ],
)
def test_a_crashed_worker_is_a_failure_and_a_recycled_one_is_not(watch, message, reason):
    watch.workers[WEB] = {"7", "8"}
    watch.units.journal = lambda unit, since, until: []
    assert watch.lost_workers(WEB, {"8", "9"}) == ""
    watch.units.journal = lambda unit, since, until: [message]  # logged a moment later
    assert watch.lost_workers(WEB, {"8", "9"}) == reason


def test_an_expected_redirect_is_healthy(watch):
    states = chain([ACTIVE | {"ActiveState": "activating", "SubState": "start"}], repeat(ACTIVE))
    watch.units.show = lambda names: {WEB: next(states)}
    watch.health.check = lambda socket_path, keep_waiting: (True, "GET /: 302 Found to /login")
    assert "/login" in watch.wait_healthy("Start", WEB, "socket_path")


def test_background_processes_are_identified_by_their_slices():
    shown = [
        ("shop-worker@1.service", "active", "shop-processes.slice"),
        ("shop-failed.service", "failed", "shop-processes.slice"),
        ("shop-nightly.service", "inactive", "shop-timers.slice"),
        ("shop-nightly.timer", "active", ""),
        ("shop-web@a.service", "active", "shop.slice"),
        ("shop-two.timer", "active", ""),  # of another app
        ("shop-two-worker@1.service", "active", "shop-two-processes.slice"),
    ]
    output = "\n\n".join(f"Id={n}\nActiveState={s}\nSlice={slice}" for n, s, slice in shown)
    processes = units.Units(lambda argv: (0, output, "")).processes("shop")
    assert processes == {WORKER, "shop-nightly.timer", "shop-failed.service"}


def test_waiting_connections_of_a_socket_are_counted(tmp_path):
    path = str(tmp_path / "web.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        assert units.Units().queue(path) == 0
        with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
            one.connect(path)
            two.connect(path)
            assert units.Units().queue(path) == 2
            assert units.Units().queue(path + "x") == 0


def test_an_error_of_systemd_is_reported():
    failing = units.Units(lambda argv: (5, "", "Unit x.service not found.\n"))
    with pytest.raises(units.DeployError, match=r"systemctl start x\.service: Unit x"):
        failing.systemctl("start", "x.service")


def test_a_process_started_before_a_change_is_stale(tmp_path):
    def pids(since):
        return {one.pid for one in stale.stale_processes(os.getuid(), since, WEB)}

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        wait_for(lambda: process.pid in pids(time.time() + 1))
        assert process.pid not in pids(time.time() - 60)
        process.communicate(b"\n")
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "stat").write_text("7 (a) b) S " + "0 " * 30)
    for unit, names in ((WEB, []), (WORKER, ["a) b"])):
        (folder / "cgroup").write_text(f"0::/shop.slice/{unit}\n")
        found = stale.stale_processes(os.getuid(), time.time(), WEB, tmp_path)
        assert [one.name for one in found] == names
