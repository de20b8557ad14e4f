"""An app on a socket, run by Gunicorn with the configuration of role gunicorn."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from flaskstack.units import UnixConnection, children
from helpers.templates import render

APP = """
import os, threading, time
from pathlib import Path
time.sleep(float(os.environ.get("IMPORT_SECONDS", 0.5)))
held = []
def app(environ, start_response):
    if environ["PATH_INFO"] in ("/hang", "/stream"):
        threading.Event().wait()
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        Path(folder, f"counter_{os.getpid()}.db").open("a").write("1")
    held.append(b"x" * (int(environ["PATH_INFO"][1:] or 0) << 20))
    start_response("200 OK", [("Content-Length", "0"), ("X-Worker", str(os.getpid()))])
    return []
def after(server, worker):
    Path("after").write_text(str(worker.pid))
def ready(server):
    Path("ready").touch()
def imported(worker):
    Path(f"imported-{worker.pid}").touch()
"""


class Served:
    """An app run by Gunicorn with two workers, on a socket."""

    def __init__(self, folder: Path, **variables: object) -> None:
        """Start it with the settings that the role derives from these variables."""
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
        """Request a path; return the worker that answered."""
        with closing(UnixConnection(str(self.folder / "web.sock"), timeout=20)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200
        return int(answer.headers["X-Worker"])

    def answers(self) -> bool:
        try:
            return bool(self.ask())
        except (OSError, http.client.HTTPException):
            return False

    def workers(self) -> set[int]:
        return set(map(int, children(str(self.process.pid))))

    def events(self, *names: str) -> list[tuple[str, int]]:
        """Return log events of workers: the event's name and the process id."""
        found = re.findall(rf"({'|'.join(names)}) .*?(\d+)", (self.folder / "log").read_text())
        return [(name, int(pid)) for name, pid in found]

    def replaced(self) -> list[int]:
        """Return the workers that were replaced or are being replaced."""
        return [pid for _, pid in self.events("Replacing")]
