"""uv on a host, which installs packages: a pinned version, and how it reaches the app's index."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ansible.module_utils.release_refusal import RefusedError, last_lines

OPTIONS: dict[str, Any] = {
    "uv_lock": {"type": "str", "required": True},  # uv's version and hashes, as pip reads them
    "index_url": {"type": "str", "default": "", "no_log": True},  # empty: as the host is set up
    "index_ca": {"type": "str", "default": ""},  # certificate in PEM
}
TOOLS = Path("/usr/local/lib/flaskstack")
CACHE = Path("/var/cache/flaskstack/uv")
CACHE_LIMIT = 1024**3  # bytes
PIP_WHEELS = Path("/usr/share/python-wheels")  # Debian's package python3-pip-whl
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SECRETS = Path("/run")  # files there are never on a disk
PIP_OPTIONS = [
    *("install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-compile"),
    *("--root-user-action=ignore", "--require-hashes", "--only-binary=:all:"),
]
SETTINGS: dict[str, str] = {
    "NO_COLOR": "1",
    "PIP_NO_INPUT": "1",
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_DOWNLOADS": "never",
}


class Index:
    """Settings of uv and pip for an index whose URL may hold a password.

    They are in files that only root reads: others see the arguments of programs.
    """

    def __init__(self, folder: Path, url: str, ca: str) -> None:
        """Write the files into a folder that only root can open."""
        self.files: dict[str, Path] = {}  # by the variable that names each
        if url:
            self.files |= {"UV_CONFIG_FILE": folder / "uv", "PIP_CONFIG_FILE": folder / "pip"}
            self.files["UV_CONFIG_FILE"].write_text(
                f"[[index]]\nurl = {json.dumps(url)}\ndefault = true\n"
            )
            self.files["PIP_CONFIG_FILE"].write_text(f"[global]\nindex-url = {url}\n")
        if ca:
            self.files |= {"SSL_CERT_FILE": folder / "ca", "PIP_CERT": folder / "ca"}
            self.files["PIP_CERT"].write_text(ca)

    def environment(self) -> dict[str, str]:
        """Return the environment of uv and pip: the host's, but for what would win over files."""
        known = SETTINGS | system_certificates() | dict(os.environ)
        if "UV_CONFIG_FILE" in self.files:
            known = {k: v for k, v in known.items() if not re.match("(PIP|UV)_.*INDEX", k)}
        if "PIP_CERT" in self.files:
            known.pop("SSL_CERT_DIR", None)
        return known | {name: str(file) for name, file in self.files.items()}


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
    if not (folder / "bin/uv").exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".uv-", dir=TOOLS) as work:
            new, file = Path(work, "uv"), Path(work, "uv.lock")
            file.write_text(lock)
            try:
                run([*find_pip(), *PIP_OPTIONS, f"--target={new}", f"--requirement={file}"], index)
            except RefusedError as error:
                raise RefusedError(
                    f"uv {version[1]}, which installs packages, cannot be installed:\n{error}"
                ) from error
            replace_versions(new, folder)
    return str(folder / "bin/uv")


def find_pip() -> list[str]:
    """Return the command that runs the pip of Debian's package."""
    wheel = max(PIP_WHEELS.glob("pip-*.whl"), default=None)
    if not wheel:
        raise RefusedError(f"there is no pip in {PIP_WHEELS}")
    return ["/usr/bin/python3", f"{wheel}/pip"]


def replace_versions(new: Path, folder: Path) -> None:
    """Put a version in place, unless another deploy was faster, and remove older ones."""
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
