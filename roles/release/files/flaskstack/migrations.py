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
    old, new = (found(Path(params[key]), params.get("paths") or []) for key in ("from", "to"))
    differ = sorted(path for path, content in old.items() if new.get(path) != content)
    return {"changed": False, "files": differ}


def found(release: Path, paths: list[str]) -> dict[str, str]:
    """Return the migrations of a release: hash of the content by path."""
    own = [path for path in release.glob("*") if path.name != ".venv"]
    folders = [release / path for path in paths] or [
        folder
        for path in own
        for folder in (path, *path.rglob("*"))
        if folder.is_dir() and holds_migrations(folder)
    ]
    return {
        path.relative_to(release).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in SUFFIXES and path.is_file()
    }


def holds_migrations(folder: Path) -> bool:
    """Return whether a folder usually contains migrations."""
    if folder.name == "versions":
        return (folder.parent / "env.py").is_file()
    return folder.name == "migrations" and not (folder / "versions").is_dir()
