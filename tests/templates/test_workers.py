"""What Gunicorn does with the configuration that role gunicorn writes, and its workers."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from flaskstack.units import UnixConnection, children
from rendering import render
from waiting import wait_for

APP = """
import os, time
from pathlib import Path
time.sleep(0.5)
held = []
def app(environ, start_response):
    held.append(b"x" * (int(environ["PATH_INFO"][1:] or 0) << 20))
    start_response("200 OK", [("Content-Length", "0"), ("X-Worker", str(os.getpid()))])
    return []
def after(server, worker):
    Path("after").write_text(str(worker.pid))
"""


class Served:
    """An app that Gunicorn serves, with two workers, on a socket."""

    def __init__(self, folder: Path, **variables: object) -> None:
        """Start it with the settings that the role makes of these variables."""
        self.folder = folder
        secret = {"app_secret_key": "k3Yq8ZpW0vXr6TtB1nMc4JdL7sHf2GaU", "app_no_log": True}
        given = {"app_wsgi": "shop:app", "gunicorn_max_requests_jitter": 0} | secret | variables
        (folder / "gunicorn.conf.py").write_text(render("gunicorn", "gunicorn.conf.py.j2", **given))
        (folder / "shop.py").write_text(APP)
        command = [Path(sys.executable).with_name("gunicorn"), "--config", "gunicorn.conf.py"]
        with (folder / "log").open("w") as log:
            bind = ["--bind", f"unix:{folder}/web.sock"]
            options = {"cwd": folder, "stdout": log, "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen([*command, *bind], **options)

    def ask(self, path: str = "/") -> int:
        """Ask for a path; return the worker that answered."""
        with closing(UnixConnection(str(self.folder / "web.sock"), timeout=20)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
        return int(answer.headers["X-Worker"])

    def answers(self) -> bool:
        """Return whether it answers."""
        try:
            return bool(self.ask())
        except (OSError, http.client.HTTPException):
            return False

    def workers(self) -> set[int]:
        """Return the processes of its workers."""
        return set(map(int, children(str(self.process.pid))))

    def events(self, *names: str) -> list[tuple[str, int]]:
        """Return what happened to workers: their numbers after a word of Gunicorn's or ours."""
        found = re.findall(rf"({'|'.join(names)}) .*?(\d+)", (self.folder / "log").read_text())
        return [(name, int(pid)) for name, pid in found]

    def replaced(self) -> list[int]:
        """Return the workers that were, or are being, replaced."""
        return [pid for _, pid in self.events("Replacing")]


@pytest.fixture
def serve(tmp_path):
    """Return a function that starts Gunicorn and waits until it answers."""
    started = []

    def serve(**variables):
        served = Served(tmp_path, **variables)
        started.append(served)
        wait_for(served.answers, 30)
        return served

    yield serve
    for served in started:
        served.process.terminate()
        served.process.wait(60)


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_workers_that_are_due_together_are_replaced_one_at_a_time(serve, worker_class):
    """Gunicorn's own max_requests stops all of them at once, and nothing is answered meanwhile."""
    served = serve(gunicorn_worker_class=worker_class, gunicorn_max_requests=40)
    stop, failed = threading.Event(), []

    def visit():
        while not stop.is_set():
            try:
                served.ask()
            except (AssertionError, OSError, http.client.HTTPException) as error:
                failed.append(error)

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    try:
        wait_for(lambda: len(served.replaced()) == 4, 60)
    finally:
        stop.set()
        for visitor in visitors:
            visitor.join()
    assert failed == []
    events = served.events("Booting", "Replacing", "exiting")[2:11]
    assert [name for name, _ in events] == ["Replacing", "Booting", "exiting"] * 3
    ended = [pid for name, pid in events if name == "exiting"]
    assert [pid for name, pid in events if name == "Replacing"] == ended


def test_a_worker_that_grows_is_replaced_once_it_has_answered(serve):
    hook = {"child_exit": "shop.after"}  # one of the app's own is called, too
    served = serve(gunicorn_workers=1, gunicorn_worker_memory_limit=90, gunicorn_settings=hook)
    first = served.ask()
    for _ in range(10):
        assert served.ask("/10") == first
    assert served.replaced() == [first]
    wait_for(lambda: (served.folder / "after").exists(), 20)
    assert (served.folder / "after").read_text() == str(first)
    assert served.workers() == {served.ask()} != {first}
    # The next one has as much time.
    for _ in range(10):
        served.ask()
    assert served.replaced() == [first]


def test_a_worker_that_dies_while_it_is_replaced_keeps_no_other_from_it(serve):
    served = serve(gunicorn_workers=1, gunicorn_max_requests=5)
    first = served.ask()
    while not served.replaced():
        served.ask()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: first not in served.workers() and served.answers(), 20)
    while len(served.replaced()) < 2:
        served.ask()
    second = served.replaced()[1]
    wait_for(lambda: second not in served.workers(), 20)
    assert len(served.workers()) == 1
