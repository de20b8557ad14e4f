"""Compare the migrations of two releases on a host."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

SUFFIXES = (".py", ".sql")


def between(params: dict[str, Any]) -> dict[str, Any]:
    """Return in `files` the migrations that the rollback target lacks or has with other content.

    `params` has `from` and `to` (folders of releases), and `paths`: folders to compare. Empty
    `paths` selects folders named versions beside an env.py (Alembic) and folders named migrations.
    """
    old, new = (hashes(Path(params[key]), params.get("paths") or []) for key in ("from", "to"))
    return {"changed": False, "files": sorted(path for path in old if new.get(path) != old[path])}


def hashes(release: Path, paths: list[str]) -> dict[str, str]:
    """Return the migrations of a release: hash of the content by path."""
    folders = [release / path for path in paths] or [
        folder
        for path in release.glob("*")
        if path.name != ".venv"
        for folder in (path, *path.rglob("*"))
        if folder.is_dir() and has_migrations(folder)
    ]
    return {
        path.relative_to(release).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and path.is_file()
    }


def has_migrations(folder: Path) -> bool:
    """Return whether a folder usually contains migrations."""
    if folder.name == "versions":
        return (folder.parent / "env.py").is_file()
    return folder.name == "migrations" and not (folder / "versions").is_dir()
