"""uv on a host, which installs packages: a pinned version, and the way to the app's index."""

from __future__ import annotations

import gzip
import hashlib
import html
import http.client
import io
import json
import os
import platform
import re
import shutil
import ssl
import subprocess
import tempfile
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import Request, urlopen

from flaskstack.errors import RefusedError, last_lines

OPTIONS: dict[str, Any] = {
    "uv_lock": {"type": "str", "required": True},  # uv's version and hashes, in pip's format
    "index_url": {"type": "str", "default": "", "no_log": True},  # empty: as the host is set up
    "index_ca": {"type": "str", "default": ""},  # certificate in PEM
}
TOOLS = Path("/usr/local/lib/flaskstack")
CACHE = Path("/var/cache/flaskstack/uv")
CACHE_LIMIT = 1024**3  # bytes
PYPI = "https://pypi.org/simple"
TIMEOUT = 60  # seconds without an answer
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SECRETS = Path("/run")  # files there are never on a disk
SETTINGS: dict[str, str] = {
    "NO_COLOR": "1",
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_DOWNLOADS": "never",
}


class Index:
    """An index of packages whose URL may hold a password.

    uv is told of it by files that only root reads: others see the arguments of programs.
    """

    def __init__(self, folder: Path, url: str, ca: str) -> None:
        """Write the files into a folder that only root can open."""
        self.url, self.ca = url, ca
        self.files: dict[str, Path] = {}  # by the variable that names each
        if url:
            self.files["UV_CONFIG_FILE"] = folder / "uv.toml"
            text = f"[[index]]\nurl = {json.dumps(url)}\ndefault = true\n"
            self.files["UV_CONFIG_FILE"].write_text(text)
        if ca:
            self.files["SSL_CERT_FILE"] = folder / "ca.pem"
            self.files["SSL_CERT_FILE"].write_text(ca)

    def environment(self) -> dict[str, str]:
        """Return the environment of uv: the host's, but for what would win over files."""
        known = SETTINGS | system_certificates() | dict(os.environ)
        if self.url:
            known = {k: v for k, v in known.items() if not re.match("UV_.*INDEX", k)}
        if self.ca:
            known.pop("SSL_CERT_DIR", None)
        return known | {name: str(file) for name, file in self.files.items()}

    def fetch(self, url: str) -> tuple[bytes, str]:
        """Download from the index; return what came, and from where in the end."""
        parts, own = urlsplit(url), urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        request = Request(parts._replace(netloc=host).geturl(), headers={"Accept-Encoding": "gzip"})
        if own.username and host == own.netloc.rpartition("@")[2]:
            login = b64encode(unquote(own.netloc.rpartition("@")[0]).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {login}")
        trusted = ssl.create_default_context(cadata=self.ca or None)
        with urlopen(request, timeout=TIMEOUT, context=trusted) as answer:
            packed = answer.headers.get("Content-Encoding") == "gzip"
            data = answer.read()
            return gzip.decompress(data) if packed else data, answer.url


@contextmanager
def index_settings(wanted: dict[str, Any]) -> Iterator[Index]:
    """Have the settings of an index on the host as long as they are needed."""
    with tempfile.TemporaryDirectory(prefix="index-", dir=SECRETS) as folder:
        yield Index(Path(folder), wanted["index_url"], wanted["index_ca"])


def system_certificates() -> dict[str, str]:
    """Have uv trust the CAs that the host does. Without the package it has its own list."""
    return {"UV_SYSTEM_CERTS": "true"} if CERTIFICATES.exists() else {}


def run(command: list[str], index: Index) -> str:
    """Return what a program writes, or refuse with the end of it."""
    done = subprocess.run(
        command,
        cwd="/",  # no uv.toml or pyproject.toml of others is read
        env=index.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise RefusedError(last_lines(done.stdout))
    return done.stdout


def install_uv(lock: str, index: Index) -> str:
    """Return the program uv of the locked version, which is installed where it is missing."""
    version = re.search(r"^uv==(\S+)", lock, re.MULTILINE)
    if not version:
        raise RefusedError("the lock of uv does not pin it")
    folder = TOOLS / f"uv-{version[1]}"
    if not folder.exists():
        url = index.url or os.environ.get("UV_DEFAULT_INDEX") or PYPI
        try:
            wheel = download_uv(f"{url.rstrip('/')}/uv/", version[1], index)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, HTTPError):
                error.close()
            raise RefusedError(
                f"uv {version[1]} cannot be installed from {url}: {error}"
            ) from error
        if hashlib.sha256(wheel).hexdigest() not in re.findall(r"sha256:(\w+)", lock):
            raise RefusedError(f"Hash mismatch: {url} has another uv {version[1]}")
        with zipfile.ZipFile(io.BytesIO(wheel)) as packed:
            replace_versions(packed.read(f"uv-{version[1]}.data/scripts/uv"), folder)
    return str(folder / "uv")


def download_uv(page: str, version: str, index: Index) -> bytes:
    """Return uv's wheel for this machine, which a page of the index (PEP 503) has a link to."""
    text, base = index.fetch(page)
    name = rf"/uv-{re.escape(version)}-py3-none-manylinux[^/]*_{platform.machine()}\.whl(#.*)?$"
    links = [
        urljoin(base, html.unescape(link)) for link in re.findall('href="(.*?)"', text.decode())
    ]
    link = next((link for link in links if re.search(name, link)), "")
    if not link:
        raise OSError(f"it has no uv {version} for {platform.machine()}")
    return index.fetch(link.partition("#")[0])[0]


def replace_versions(program: bytes, folder: Path) -> None:
    """Put a version in place, unless another deploy was faster, and remove older ones."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".uv-", dir=TOOLS) as work:
        new = Path(work, "new")
        new.mkdir()
        (new / "uv").write_bytes(program)
        (new / "uv").chmod(0o755)
        if not folder.exists():
            new.rename(folder)
    for old in TOOLS.glob("uv-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)


def limit_cache(uv: str, index: Index) -> None:
    """Remove what uv does not need any more; all of it where the rest is still too much."""
    run([uv, "cache", "prune", "--quiet", f"--cache-dir={CACHE}"], index)
    if size(CACHE) > CACHE_LIMIT:
        run([uv, "cache", "clean", "--quiet", f"--cache-dir={CACHE}"], index)


def size(folder: Path) -> int:
    """Return the bytes of all files below a folder, of which some may just be removed."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(parent, name).lstat().st_size
    return total
