"""A package index over HTTPS with a password; its CA is created for the test."""

from __future__ import annotations

import hashlib
import io
import ssl
import subprocess
import sys
import tarfile
import threading
from base64 import b64encode
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from helpers.certs import Authority


class Handler(SimpleHTTPRequestHandler):
    """Serve files to requests with the password."""

    def do_GET(self) -> None:
        """Answer a request."""
        if self.headers.get("Authorization") == self.server.credentials:
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", "Basic")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class IndexServer(ThreadingHTTPServer):
    """Serve a directory of packages on localhost."""

    def __init__(self, folder: Path, password: str) -> None:
        """Start the server."""
        self.folder, self.ca = folder, folder.with_name("index-ca.pem")
        (folder / "simple").mkdir(parents=True)
        super().__init__(("", 0), partial(Handler, directory=str(folder)))
        self.credentials = f"Basic {b64encode(f'me:{password}'.encode()).decode()}"
        self.url = f"https://me:{password}@localhost:{self.server_port}/simple"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority, pair = Authority(), folder.with_name("index-server.pem")
        server = authority.certify("localhost")
        self.ca.write_text(authority.pem)
        pair.write_text(server.key + server.chain)
        context.load_cert_chain(pair)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def mirror(self, requirement: str) -> None:
        """Copy a package from the index that this machine uses."""
        folder = self.folder / "simple" / requirement.partition("==")[0]
        command = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", requirement]
        subprocess.run([*command, f"--dest={folder}"], check=True)
        self.list(folder)

    def add_source(self, name: str, build_wheel: str) -> None:
        """Add a source package; `build_wheel` is the body of its build function."""
        metadata = f"Metadata-Version: 2.2\nName: {name}\nVersion: 1.0\n"
        project = f'[project]\nname = "{name}"\nversion = "1.0"\n[build-system]\nrequires = []\n'
        parts = {
            "PKG-INFO": metadata,
            "pyproject.toml": project + 'build-backend = "backend"\nbackend-path = ["."]\n',
            "backend.py": f"def build_wheel(folder, *_):\n    {build_wheel}\n",
        }
        folder = self.folder / "simple" / name
        folder.mkdir()
        with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
            for part, text in parts.items():
                member = tarfile.TarInfo(f"{name}-1.0/{part}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        self.list(folder)

    def list(self, folder: Path) -> None:
        """Write the index page of a package."""
        links = [
            f'<a href="{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">'
            f"{path.name}</a>"
            for path in sorted(folder.iterdir())
            if path.name != "index.html"
        ]
        (folder / "index.html").write_text("\n".join(links))
