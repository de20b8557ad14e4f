"""The release role's modules on the controller, to call without Ansible."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

from repository import ROOT

ROLE = ROOT / "roles/release"
LOCK = "gunicorn==27.0.0 \\\n    --hash=sha256:00\n"
PARTS = ("release_refusal", "app_git", "app_source", "app_archive", "app_requirements", "app_lock")


def load(name: str, path: Path) -> ModuleType:
    """Import a part of the role as Ansible does."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


for part in PARTS:
    load(f"ansible.module_utils.{part}", ROLE / f"module_utils/{part}.py")
RefusedError = sys.modules["ansible.module_utils.release_refusal"].RefusedError
build_release = load("app_build", ROLE / "module_utils/app_build.py")


class Builder:
    """Builds a release of a source, with the settings that have no default in the module."""

    def __init__(self, cache: Path) -> None:
        """Keep archives in a folder."""
        self.cache = cache
        self.settings = {
            name: option.get("default") for name, option in build_release.OPTIONS.items()
        }
        self.settings |= {
            "requirements": ["requirements.lock"],
            "pythons": [{"version": "3.13.5", "machine": "x86_64"}],
            "uv": str(Path(sys.executable).with_name("uv")),
            "root": "/srv/shop/releases",
        }

    def __call__(self, look: bool = False, cache: str = "", **settings: Any) -> dict[str, Any]:
        """Build; what begins like a source's parameter is one."""
        names = build_release.OPTIONS["source"]["options"]
        source = {name: str(settings.pop(name, "")) for name in names}
        folder = self.cache.parent / cache if cache else self.cache
        given = self.settings | {"source": source, "cache": str(folder)} | settings
        return build_release.build(given, look)

    def lock(self, **settings: Any) -> list[str]:
        """Return the lock of a release, a line a package without its hashes."""
        release = self(**settings)
        lines = Path(release["lock"]).read_text().split("\n") + release["unhashed"]
        return [line.partition(" --hash")[0] for line in lines if line]


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder."""
    who = [
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.com",
        "-c",
        "protocol.file.allow=always",
    ]
    command = ["git", *who, "-C", str(folder), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path) -> str:
    """Commit all that is in a folder, which becomes a repository if it is none."""
    if not (folder / ".git").exists():
        git(folder, "init", "-q", "-b", "main", ".")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "a commit")
    return git(folder, "rev-parse", "HEAD")


class Index:
    """An index of packages in a folder, whose wheels hold nothing but what they need."""

    def __init__(self, folder: Path) -> None:
        """Begin without any package."""
        self.folder = folder
        self.url = folder.as_uri()

    def add(self, name: str, version: str, *needs: str) -> str:
        """Add a version of a package and return its hash."""
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        wheel = folder / f"{name}-{version}-py3-none-any.whl"
        metadata = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
        extras = {need.split("'")[1] for need in needs if "extra ==" in need}
        metadata += [f"Provides-Extra: {extra}" for extra in sorted(extras)]
        parts = {
            "METADATA": "\n".join(["Metadata-Version: 2.1", *metadata, ""]),
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            for part, text in parts.items():
                archive.writestr(zipfile.ZipInfo(f"{name}-{version}.dist-info/{part}"), text)
        links = []
        for path in sorted(folder.glob("*.whl")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            links.append(f'<a href="{path.name}#sha256={digest}">{path.name}</a>')
        (folder / "index.html").write_text("\n".join(links))
        return hashlib.sha256(wheel.read_bytes()).hexdigest()
