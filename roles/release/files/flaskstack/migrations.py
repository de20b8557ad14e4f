"""Name the migrations in which two releases of a host differ."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

SUFFIXES = (".py", ".sql")


def between(params: dict[str, Any]) -> dict[str, Any]:
    """Return in `files` the migrations that the release to go back to lacks, or has otherwise.

    `params` has `from` and `to` (folders of releases), and `paths`: folders to compare instead of
    those called versions beside an env.py (Alembic) and those called migrations.
    """
    old, new = (found(Path(params[key]), params.get("paths") or []) for key in ("from", "to"))
    differ = sorted(path for path, content in old.items() if new.get(path) != content)
    return {"changed": False, "files": differ}


def found(release: Path, paths: list[str]) -> dict[str, str]:
    """Return the migrations of a release, by path, with the hash of what they hold."""
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
    """Return whether a folder is one that migrations are usually in."""
    if folder.name == "versions":
        return (folder.parent / "env.py").is_file()
    return folder.name == "migrations" and not (folder / "versions").is_dir()
