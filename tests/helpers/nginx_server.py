"""Serve the role's sites with this machine's nginx from a directory, on loopback, as any user."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import trustme

from helpers.repository import ROOT
from helpers.templates import render
from helpers.wait import wait_for

# The nginx that `./stack` unpacks, otherwise the one of this machine.
NGINX = shutil.which("nginx", path=f"{ROOT}/.local/nginx/usr/sbin:/usr/sbin:{os.environ['PATH']}")
CONFIGURATION = """\
daemon off;
pid nginx.pid;
error_log stderr;
worker_processes 2;
{user}
events {{ worker_connections 512; }}
http {{
    include mime.types;
    default_type application/octet-stream;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include etc/nginx/sites-enabled/*;
}}
"""
# Debian's mime.types, shortened.
TYPES = """\
types {
    text/html html; text/css css; text/plain txt; application/javascript js; application/json json;
    application/wasm wasm; application/pdf pdf; image/avif avif; image/png png;
    image/svg+xml svg; font/woff2 woff2;
}
"""
RELEASES = {
    "releases/1/shop/static/site.css": "before",
    "releases/1/shop/static/before.js": "before",
    "releases/2/shop/static/site.css": "body { color: teal }" * 100,
    "releases/2/shop/static/robots.txt": "User-agent: *",
    "releases/2/shop/static/.hidden": "not for the world",
    "releases/2/shop/beside.txt": "not for the world",
    "shared/uploads/public/old.txt": "long there",
    "shared/uploads/public/2026/11/new.txt": "new",
    "shared/uploads/private/a b.txt": "0123456789",
    "shared/uploads/beside.txt": "not for the world",
    "shared/secret/key.txt": "not for the world",
}


@cache
def build() -> str:
    assert NGINX, "there is no nginx: ./stack test unpacks one into .local/nginx"
    return subprocess.run([NGINX, "-V"], capture_output=True, text=True, check=True).stderr


def run(*command: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start a command that ends when this process does."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], **options)


class Stub:
    """The stub app behind nginx."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self) -> None:
        """Start, and wait until it answers."""
        self.path.unlink(missing_ok=True)
        self.process = run(sys.executable, ROOT / "tests/nginx/upstream.py", self.path)
        wait_for(self.answers, every=0.02)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self.path)) == 0

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Server:
    """A host's nginx with the sites of its apps and the stub app.

    The configuration differs from that of a host in three points: the `listen` addresses, the
    directories, which are below `root`, and the log, which is a file instead of the journal.
    A random address in 127.0.0.0/8 avoids port conflicts.
    """

    def __init__(self, root: Path, apps: list[dict[str, Any]]) -> None:
        """Serve `apps` (the role's variables of each; the first is in front of the stub app)."""
        self.root = root
        self.apps = {app["app_name"]: app for app in apps}
        self.address = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])
        self.http, self.https, self.second = self._free_ports(3)
        self.stub = Stub(self.path("/srv/shop/a.sock"))

    def path(self, path: str) -> Path:
        """Return the local path of a path on a host."""
        return self.root / path.lstrip("/")

    def start(self) -> None:
        """Write the host's files, and start all servers."""
        for name, text in RELEASES.items():
            self._write(f"/srv/shop/{name}", text)
        for link, target in (("previous", "releases/1"), ("current", "releases/2")):
            self.path(f"/srv/shop/{link}").symlink_to(target)
        self.path("/srv/shop/web.sock").symlink_to("a.sock")
        for app in self.apps:
            self._certify(app)
            self._write(f"/etc/nginx/sites-enabled/{app}.conf", self._render(app, "site.conf"))
        self._write("/etc/nginx/sites-enabled/default", self._render(app, "default"))
        # Started as root, nginx would run its workers as a user who cannot read this directory.
        user = "user root;" if os.geteuid() == 0 else ""
        self._write("mime.types", TYPES)
        self.path("/var/lib/flaskstack/nginx").mkdir(parents=True, exist_ok=True)
        self._write("nginx.conf", CONFIGURATION.format(user=user))
        self.stub.start()
        with self.path("error.log").open("wb") as errors:
            self._nginx = run(
                str(NGINX), "-e", "stderr", "-p", f"{self.root}/", "-c", "nginx.conf", stderr=errors
            )
        wait_for(self._listens, every=0.02)

    def stop(self) -> None:
        self._nginx.terminate()
        self._nginx.wait()
        self.stub.stop()

    def log(self) -> list[str]:
        """Return the lines of the log."""
        return self.path("log").read_text(errors="replace").splitlines()

    def log_entry(self, request_id: str) -> dict[str, Any]:
        """Wait for the access log entry of a request."""

        def entry() -> dict[str, Any] | None:
            entries = (json.loads(line) for line in self.log() if line.startswith("{"))
            return next((e for e in entries if e.get("request_id") == request_id), None)

        return wait_for(entry, every=0.02)

    def certificate(self, app: str) -> Path:
        """Return the certificate file of an app's certificate authority."""
        return self.path(f"/etc/nginx/certificates/{app}/current/ca.pem")

    def _listens(self) -> bool:
        assert self._nginx.poll() is None, self.path("error.log").read_text()
        with socket.socket() as connection:
            return connection.connect_ex((self.address, self.http)) == 0

    def _free_ports(self, number: int) -> list[int]:
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
            for each in sockets:
                each.bind((self.address, 0))
            return [each.getsockname()[1] for each in sockets]

    def _write(self, path: str, text: str) -> None:
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(text)

    def _certify(self, app: str) -> None:
        authority = trustme.CA()
        pair = authority.issue_cert(f"{app}.example.org")
        folder = self.certificate(app).parent
        folder.mkdir(parents=True)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        pair.private_key_pem.write_to_path(folder / "privkey.pem")
        pair.private_key_and_cert_chain_pem.write_to_path(folder / "fullchain.pem")

    def _render(self, app: str, template: str) -> str:
        settings = self.apps[app] | {
            "ansible_managed": "Ansible managed",
            "nginx_listen": [f"{self.address}:{port}" for port in (self.http, self.second)],
            "nginx_listen_https": [f"{self.address}:{self.https}"],
            "__nginx_gathered": {"stderr": build()},
        }
        text = render("nginx", f"etc/nginx/sites-enabled/{template}.j2", **settings)
        text = re.sub(r"syslog:server=unix:/dev/log\S*", f"{self.root}/log", text)
        return re.sub(r'(?<=[ ":=])/(?=(?:etc|run|srv|var)/)', f"{self.root}/", text)
