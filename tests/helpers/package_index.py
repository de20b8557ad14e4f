"""Package indexes for tests: a directory, and a server with HTTPS and a password."""

from __future__ import annotations

import hashlib
import io
import ssl
import subprocess
import sys
import tarfile
import threading
import zipfile
from base64 import b64encode
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from helpers.certs import Authority


def list_files(folder: Path) -> dict[str, str]:
    """Write the index page of a package; return its files by name with their hashes."""
    files = sorted(folder.glob("*-*"))
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    links = [f'<a href="{name}#sha256={digest}">{name}</a>' for name, digest in hashes.items()]
    (folder / "index.html").write_text("\n".join(links))
    return hashes


class Index:
    """A package index in a directory; its wheels contain only metadata."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = folder.as_uri()

    def add(self, name: str, version: str, *needs: str, tag: str = "py3-none-any") -> str:
        """Add a wheel of a package version and return its hash."""
        wheel = self.folder / name / f"{name}-{version}-{tag}.whl"
        wheel.parent.mkdir(parents=True, exist_ok=True)
        metadata = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
        extras = {need.split("'")[1] for need in needs if "extra ==" in need}
        metadata += [f"Provides-Extra: {extra}" for extra in sorted(extras)]
        parts = {
            "METADATA": "\n".join(["Metadata-Version: 2.1", *metadata, ""]),
            "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
            "RECORD": "",
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            for part, text in parts.items():
                archive.writestr(zipfile.ZipInfo(f"{name}-{version}.dist-info/{part}"), text)
        return list_files(wheel.parent)[wheel.name]


class Handler(SimpleHTTPRequestHandler):
    """Serve files to requests with the password."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") == self.server.credentials:
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", "Basic")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class IndexServer(ThreadingHTTPServer):
    """Serve a directory of packages on localhost, with a certificate of its own CA."""

    def __init__(self, folder: Path, password: str) -> None:
        self.folder, self.ca = folder, folder.with_name("index-ca.pem")
        (folder / "simple").mkdir(parents=True)
        super().__init__(("", 0), partial(Handler, directory=str(folder)))
        self.credentials = f"Basic {b64encode(f'me:{password}'.encode()).decode()}"
        self.url = f"https://me:{password}@localhost:{self.server_port}/simple"
        authority, context = Authority(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.write_text(authority.pem)
        authority.ca.issue_cert("localhost").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def mirror(self, requirement: str) -> None:
        """Copy a package from the index that this machine uses."""
        folder = self.folder / "simple" / requirement.partition("==")[0]
        command = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", requirement]
        subprocess.run([*command, f"--dest={folder}"], check=True)
        list_files(folder)

    def add_source(self, name: str, build_wheel: str) -> None:
        """Add a source package; `build_wheel` is the body of its build function."""
        project = f'[project]\nname = "{name}"\nversion = "1.0"\n[build-system]\nrequires = []\n'
        parts = {
            "PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: 1.0\n",
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
        list_files(folder)
