"""The units of an app as reported by systemd, and the app's answers at its socket."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace

import pytest

from flaskstack import stale, units
from helpers.wait import wait_for

WORKER = "shop-worker@1.service"
WEB = "shop-web@a.service"
ACTIVE = {"ActiveState": "active", "SubState": "running", "NRestarts": "0", "MainPID": "7"}


@pytest.mark.parametrize(
    ("said", "wrong"),
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
def test_unit_problems_are_reported(said, wrong):
    assert units.failure_reason("u", said) == wrong


@pytest.mark.parametrize(
    ("text", "length"),
    [("40s", 40), ("1min 30s", 90), ("2h", 7200), ("500ms", 0.5), ("infinity", 90)],
)
def test_systemd_time_spans(text, length):
    assert units.seconds(text) == length


class App:
    """An app on a Unix socket."""

    def __init__(self, path, answer):
        """Listen at `path`, and return `answer` to each request."""
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.asked, self.answer = b"", answer
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        """Answer one request."""
        connection, _ = self.server.accept()
        with connection, self.server:
            self.asked = connection.recv(10_000)
            connection.sendall(self.answer)


@pytest.mark.parametrize(
    ("status", "body", "well"),
    [(200, "", True), (200, "^up to", True), (200, "^down", False), (204, "", False)],
)
def test_health_requests_look_like_those_of_nginx(tmp_path, status, body, well):
    socket_path = tmp_path / "web.sock"
    app = App(socket_path, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nup to date")
    health = units.Health("/healthz", {"Host": "shop.example"}, status, body)
    said = health.ask(str(socket_path), units.Deadline(10))
    app.thread.join()
    assert said[0] is well
    assert said[1].startswith("GET /healthz: 200 OK up to date")
    assert app.asked.startswith(b"GET /healthz HTTP/1.1\r\n")
    assert b"\r\nHost: shop.example\r\n" in app.asked


def test_an_app_that_does_not_answer_is_retried_until_the_deadline(tmp_path):
    socket_path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_path))
        server.listen()
        said = units.Health("/", {}, 200, "").ask(str(socket_path), units.Deadline(0))
    assert said == (False, "GET /: no answer")


def test_a_missing_socket_is_reported(tmp_path):
    well, said = units.Health("/", {}, 200, "").ask(str(tmp_path / "no"), units.Deadline(10))
    assert (well, said[:27]) == (False, "GET /: FileNotFoundError: [")


def test_warm_up_requests_are_simultaneous_and_any_answer_is_accepted(tmp_path):
    socket_path, asked, together = tmp_path / "web.sock", [], threading.Barrier(4)

    class Visited(socketserver.StreamRequestHandler):
        def handle(self):
            asked.append(self.rfile.readline().split()[1].decode())
            together.wait(10)  # fails unless all requests are simultaneous
            if len(asked) > 4:
                self.wfile.write(b"HTTP/1.0 500 No\r\n\r\n")

    with socketserver.ThreadingUnixStreamServer(str(socket_path), Visited) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        units.Health("/healthz", {}, 200, "").warm(str(socket_path), ["/", "/notes"], 4)
        server.shutdown()
        thread.join()
    assert asked == ["/"] * 4 + ["/notes"] * 4
    assert not together.broken


def test_a_warm_up_request_does_not_wait_for_an_endless_answer(tmp_path):
    socket_path, left = tmp_path / "web.sock", threading.Event()

    class Endless(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
            with suppress(OSError):
                for _ in range(100):  # ten seconds
                    self.wfile.write(b"data: on\n\n")
                    time.sleep(0.1)
                return
            left.set()

    with socketserver.ThreadingUnixStreamServer(str(socket_path), Endless) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        units.Health("/healthz", {}, 200, "").warm(str(socket_path), ["/"], 1)
        assert left.wait(5)
        server.shutdown()
        thread.join()


def test_workers_are_the_children_of_gunicorn():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert str(process.pid) in units.children(str(os.getpid()))
        process.communicate(b"\n")
    assert str(process.pid) not in units.children(str(os.getpid()))


def test_a_crash_is_detected_however_long_the_imports_take(monkeypatch):
    class Dying:
        looks = 0

        def show(self, names):
            self.looks += 1
            state = {"ActiveState": "active", "SubState": "running", "MainPID": "7"}
            return dict.fromkeys(names, state | {"NRestarts": "0" if self.looks < 8 else "1"})

    slept = cycle([True, True, False])  # a check may fall between two imports
    monkeypatch.setattr(units, "is_sleeping", lambda pid: next(slept))
    monkeypatch.setattr(units.time, "sleep", lambda seconds: None)
    well = SimpleNamespace(ask=lambda socket_path, patience: (True, "200"))
    watch = units.Watch(Dying(), well)
    watch.remember(WORKER)
    with pytest.raises(units.DeployError, match="died"):
        watch.stay_healthy("Restart", [WORKER], "web", "socket_path", 0, [WORKER])
    monkeypatch.setattr(units, "is_sleeping", lambda pid: True)
    watch.units.looks = 0
    watch.stay_healthy(
        "Restart", [WORKER], "web", "socket_path", 0, [WORKER]
    )  # waiting for work: returns


def test_a_waiting_process_is_asleep_and_a_computing_one_is_not():
    for code, waits in (("input()", True), ("while True: pass", False)):
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
            wait_for(
                lambda one=process, wanted=waits: units.is_sleeping(str(one.pid)) is wanted, 10
            )
            process.kill()
    assert not units.is_sleeping(str(process.pid))


# Starts two workers and replaces those that end; logs the same messages as Gunicorn 27.
ARBITER = """
import os, signal
for number, code in ((signal.SIGUSR1, 0), (signal.SIGUSR2, 1)):
    signal.signal(number, lambda *_, code=code: os._exit(code))
def start():
    if not os.fork():
        while True:
            signal.pause()
start()
while True:
    start()
    pid, status = os.wait()
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        print(f"[1] [ERROR] Worker (pid:{pid}) was sent {name}! Perhaps out of memory?", flush=True)
    elif code := os.WEXITSTATUS(status):
        print(f"[1] [ERROR] Worker (pid:{pid}) exited with code {code}.", flush=True)
    else:
        print(f"[{pid}] [INFO] Worker exiting (pid: {pid})", flush=True)
"""


@pytest.fixture
def watch(tmp_path):
    """Return the watch over an instance on this machine, with a file as its journal."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", ARBITER]
    with log.open("w") as output, subprocess.Popen(command, stdout=output) as arbiter:

        class Here(units.Units):
            def show(self, names):
                return {name: ACTIVE | {"MainPID": str(arbiter.pid)} for name in names}

            def journal(self, unit, since, until):
                return log.read_text().splitlines()

        wait_for(lambda: len(units.children(str(arbiter.pid))) == 2)
        watch = units.Watch(
            Here(), SimpleNamespace(ask=lambda socket_path, patience: (True, "200"))
        )
        watch.remember(WEB, workers=True)
        yield watch
        arbiter.send_signal(signal.SIGSTOP)  # so that it starts no more workers
        for process in (*units.children(str(arbiter.pid)), arbiter.pid):
            os.kill(int(process), signal.SIGKILL)


def test_a_recycled_worker_is_not_a_failure(watch):
    worker = min(watch.workers[WEB])
    os.kill(int(worker), signal.SIGUSR1)
    wait_for(lambda: not Path("/proc", worker).exists())
    watch.stay_healthy("Watch", [WEB], WEB, "socket_path", 0.5)
    assert watch.gone == {WEB: {worker}}
    assert len(watch.workers[WEB]) == 2


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGKILL, signal.SIGABRT])
def test_a_crashed_worker_is_a_failure(watch, number):
    os.kill(int(min(watch.workers[WEB])), number)
    with pytest.raises(units.DeployError, match="lost 1 of its workers"):
        watch.stay_healthy("Watch", [WEB], WEB, "socket_path", 10)


def test_a_hung_worker_is_reported_by_gunicorn_before_it_ends(watch, tmp_path):
    worker = min(watch.workers[WEB])
    (tmp_path / "log").write_text(f"[1] [CRITICAL] WORKER TIMEOUT (pid:{worker})\n")
    assert watch.lost(WEB, watch.workers[WEB] - {worker}) == f"{WEB} lost 1 of its workers"


@pytest.mark.parametrize("status", [302, 307])
def test_an_expected_redirect_is_healthy(monkeypatch, status):
    answers = [{"ActiveState": "activating", "SubState": "start"}, ACTIVE]
    show = SimpleNamespace(show=lambda names: {WEB: answers[0] if len(answers) > 1 else ACTIVE})
    monkeypatch.setattr(units.time, "sleep", lambda _: answers.pop(0))
    well = SimpleNamespace(
        ask=lambda socket_path, patience: (True, f"GET /: {status} Found to /login")
    )
    assert "/login" in units.Watch(show, well).wait_healthy("Start", WEB, "socket_path", 10)


SHOWN = """Id=shop-worker@1.service
ActiveState=active
Slice=shop-processes.slice

Id=shop-nightly.service
ActiveState=inactive
Slice=shop-timers.slice

Id=shop-nightly.timer
ActiveState=active

Id=shop-two.timer
ActiveState=active

Id=shop-two-worker@1.service
ActiveState=active
Slice=shop-two-processes.slice

Id=shop-web@a.service
ActiveState=active
Slice=shop.slice

Id=shop-failed.service
ActiveState=failed
Slice=shop-processes.slice
"""


def test_background_processes_are_identified_by_their_slices():
    found = units.Units(lambda argv: (0, SHOWN, "")).processes("shop")
    assert found == {WORKER, "shop-nightly.timer", "shop-failed.service"}


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
    refused = units.Units(lambda argv: (5, "", "Unit x.service not found.\n"))
    with pytest.raises(units.DeployError, match=r"systemctl start x\.service: Unit x"):
        refused.systemctl("start", "x.service")


def test_a_process_started_before_a_change_is_stale(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        wait_for(lambda: stale.stale_processes(os.getuid(), time.time() + 1, WEB))
        old = {one.pid for one in stale.stale_processes(os.getuid(), time.time() + 1, WEB)}
        young = {one.pid for one in stale.stale_processes(os.getuid(), time.time() - 60, WEB)}
        assert process.pid in old - young
        process.communicate(b"\n")
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "stat").write_text("7 (a) b) S " + "0 " * 30)
    for unit, pids in ((WEB, []), (WORKER, [7])):
        (folder / "cgroup").write_text(f"0::/shop.slice/{unit}\n")
        found = stale.stale_processes(os.getuid(), time.time(), WEB, tmp_path)
        assert [one.pid for one in found] == pids
