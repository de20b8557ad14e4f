"""Install a pinned uv on a host, and configure its access to the app's index.

Debian has no package of uv. Installing it with pip would require pip on each host.
"""

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
import tempfile
import zipfile
from base64 import b64encode
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import Request, urlopen

from flaskstack import sandbox
from flaskstack.errors import ValidationError

TOOLS = Path("/usr/local/lib/flaskstack")
PYPI = "https://pypi.org/simple"
TIMEOUT = 60  # seconds without an answer
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SETTINGS = {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
# Variables of the host that configure proxies and certificates.
KNOWN = r"(?i)UV_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|NODE_EXTRA_CA_CERTS|(HTTPS?|ALL|NO)_PROXY"


class Index:
    """A package index. uv reads its URL from a file, as it may hold a password.

    `variables` and `files` are for a sandbox, `trusted` are the URLs named by the operator.
    """

    def __init__(self, url: str, ca: str) -> None:
        """Take the URL (empty: the host's setting) and the PEM certificate of its CA."""
        known = {name: text for name, text in os.environ.items() if re.fullmatch(KNOWN, name)}
        if url:
            known = {name: text for name, text in known.items() if not re.match("UV_.*INDEX", name)}
        self.url, self.ca = url or known.get("UV_DEFAULT_INDEX") or PYPI, ca
        self.trusted = [self.url, *urls(" ".join(known.values()))]
        self.files: dict[str, str] = {}
        self.variables = dict(SETTINGS)
        if CERTIFICATES.exists():  # of the host; without ca-certificates, uv uses its own
            self.variables["UV_SYSTEM_CERTS"] = "true"
        self.variables |= known
        if url:
            self.files["uv.toml"] = f"[[index]]\nurl = {json.dumps(url)}\ndefault = true\n"
            self.variables["UV_CONFIG_FILE"] = f"{sandbox.FILES}/uv.toml"
        if ca:
            self.files["ca.pem"] = ca
            self.variables["SSL_CERT_FILE"] = f"{sandbox.FILES}/ca.pem"
            self.variables.pop("SSL_CERT_DIR", None)

    def named(self, text: str) -> list[str]:
        """Return the hosts of URLs in requirements and of files on their index pages, as URLs."""
        first = re.search(r'^(?:name = ")?([A-Za-z0-9][\w.-]*)(?:==|"$)', text, re.MULTILINE)
        package = re.sub(r"[-_.]+", "-", first[1]).lower() if first else "setuptools"
        found = urls(text)
        for index in [self.url, *re.findall(r"--extra-index-url[ =](\S+)", text)]:
            with suppress(OSError, ValueError):
                found += self.links(f"{index.rstrip('/')}/{package}/")
        hosts = {urlsplit(url)._replace(path="", query="", fragment="").geturl() for url in found}
        return sorted(hosts)

    def links(self, page: str) -> list[str]:
        """Return the links on an index page (PEP 503)."""
        text, base = self.fetch(page)
        found = re.findall('href="(.*?)"', text.decode())
        return [urljoin(base, html.unescape(link)) for link in found]

    def fetch(self, url: str) -> tuple[bytes, str]:
        """Download from the index; return the content and the final URL. Raises OSError."""
        parts, own = urlsplit(url), urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        request = Request(parts._replace(netloc=host).geturl(), headers={"Accept-Encoding": "gzip"})
        if own.username and host == own.netloc.rpartition("@")[2]:
            login = b64encode(unquote(own.netloc.rpartition("@")[0]).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {login}")
        certificates = ssl.create_default_context(cadata=self.ca or None)
        try:
            with urlopen(request, timeout=TIMEOUT, context=certificates) as answer:
                data, packed = answer.read(), answer.headers.get("Content-Encoding") == "gzip"
                return gzip.decompress(data) if packed else data, answer.url
        except HTTPError as error:
            with error:
                raise OSError(str(error)) from None
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error


def urls(text: str) -> list[str]:
    """Return the URLs in a text."""
    return re.findall(r"https?://[^\s\"'<>,;]+", text)


def path(program: Path) -> str:
    """Return the search path of a sandbox with uv."""
    return f"{program.parent}:/usr/local/bin:/usr/bin:/bin"


def install(lock: str, index: Index) -> Path:
    """Return the path of the locked uv version (pip's format), and install it if missing.

    Raises ValidationError when the index lacks it or has a different file.
    """
    version = re.findall(r"^uv==(\S+)", lock, re.MULTILINE)[0]
    folder = TOOLS / f"uv-{version}"
    if not folder.exists():
        try:
            wheel = download(version, index)
        except OSError as error:
            raise ValidationError(
                f"uv {version} cannot be installed from {index.url}: {error}"
            ) from error
        if hashlib.sha256(wheel).hexdigest() not in re.findall(r"sha256:(\w+)", lock):
            raise ValidationError(f"Hash mismatch: {index.url} has another uv {version}")
        with zipfile.ZipFile(io.BytesIO(wheel)) as packed:
            place(packed.read(f"uv-{version}.data/scripts/uv"), folder)
    return folder / "uv"


def download(version: str, index: Index) -> bytes:
    """Return uv's wheel for this machine."""
    name = rf"/uv-{re.escape(version)}-py3-none-manylinux[^/]*_{platform.machine()}\.whl(#.*)?$"
    for link in index.links(f"{index.url.rstrip('/')}/uv/"):
        if re.search(name, link):
            return index.fetch(link.partition("#")[0])[0]
    raise OSError(f"it has no uv {version} for {platform.machine()}")


def place(program: bytes, folder: Path) -> None:
    """Install a version, unless another deploy did so first, and remove older ones."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".uv-", dir=TOOLS) as work:
        new = Path(work, "new")
        new.mkdir()
        (new / "uv").write_bytes(program)
        (new / "uv").chmod(0o755)
        if not folder.exists():
            sandbox.settle(new, folder)
    for old in set(TOOLS.glob("uv-*")) - {folder}:
        shutil.rmtree(old, ignore_errors=True)
