"""Build releases like the controller does, without Ansible."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from flaskstack.controller.build import OPTIONS, build

PYTHON = {"version": "3.13.5", "machine": "x86_64", "executable": "/usr/bin/python3"}
LOCK = "gunicorn==27.0.0 \\\n    --hash=sha256:00\n"


class Builder:
    """Build a release of a source, with settings that have no default in the plugin."""

    def __init__(self, cache: Path) -> None:
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
    settings = ("user.name=a", "user.email=a@example.com", "protocol.file.allow=always")
    options = [part for setting in settings for part in ("-c", setting)]
    command = ["git", *options, "-C", str(folder), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> str:
    """Commit all files in a directory, which becomes a repository if necessary."""
    if not (folder / ".git").exists():
        git(folder, "init", "-q", "-b", "main", ".")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "a commit")
    return git(folder, "rev-parse", "HEAD")
