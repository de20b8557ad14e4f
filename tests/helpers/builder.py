"""Build releases like the controller does, without Ansible."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from flaskstack.controller.build import OPTIONS, build

PYTHON = {"version": "3.13.5", "machine": "x86_64", "executable": "/usr/bin/python3"}
LOCK = "gunicorn==27.0.0 \\\n    --hash=sha256:00\n"


class Builder:
    """Build a release of a source, with settings that have no default in the plugin."""

    def __init__(self, cache: Path) -> None:
        """Keep archives in a directory."""
        self.settings = {name: option.get("default") for name, option in OPTIONS.items()}
        self.settings |= {
            "requirements": ["requirements.lock"],
            "python": "python3",
            "pythons": {"site": PYTHON},
            "uv": str(Path(sys.executable).with_name("uv")),
            "root": "/srv/shop/releases",
            "cache": cache,
        }

    def __call__(self, **settings: Any) -> dict[str, Any]:
        """Build a release; parameters of the source are passed on to it."""
        source = {name: str(settings.pop(name, "")) for name in OPTIONS["source"]["options"]}
        return build(self.settings | {"source": source} | settings)

    def lock(self, **settings: Any) -> list[str]:
        """Return the lock of a release, one line per package, without hashes."""
        release = self(**settings)
        lines = Path(release["lock"]).read_text().split("\n") + release["unhashed"]
        return [line.partition(" --hash")[0] for line in lines if line]


def git(folder: Path, *arguments: str) -> str:
    """Run git in a directory."""
    settings = ("user.name=a", "user.email=a@example.com", "protocol.file.allow=always")
    who = [part for setting in settings for part in ("-c", setting)]
    command = ["git", *who, "-C", str(folder), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> str:
    """Commit all files in a directory, which becomes a repository if necessary."""
    if not (folder / ".git").exists():
        git(folder, "init", "-q", "-b", "main", ".")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "a commit")
    return git(folder, "rev-parse", "HEAD")


class Index:
    """A package index in a directory; its wheels contain only metadata."""

    def __init__(self, folder: Path) -> None:
        """Create an empty index."""
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
        return self.list(wheel)

    def list(self, added: Path) -> str:
        """Write the index page of a package; return the hash of the file that was added."""
        hashes = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(added.parent.glob("*-*"))
        }
        links = [f'<a href="{name}#sha256={digest}">{name}</a>' for name, digest in hashes.items()]
        (added.parent / "index.html").write_text("\n".join(links))
        return hashes[added.name]
