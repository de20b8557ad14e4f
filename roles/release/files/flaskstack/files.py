"""Atomic and durable changes of files and links."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def sync(path: Path) -> None:
    """Flush a file or a directory to disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write(path: Path, text: str, mode: int = 0o644, group: int = -1) -> None:
    """Write a file atomically; `group` is a gid, -1 leaves it unchanged."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    opened = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(opened, "w") as file:
        file.write(text)
        os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync(path.parent)


def read(path: Path) -> str | None:
    """Return a file's text; None when it does not exist."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def link(path: Path, to: str) -> None:
    """Set a link atomically; an empty target removes it."""
    if to:
        new = path.with_name(f".{path.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(to)
        new.replace(path)
    else:
        path.unlink(missing_ok=True)
    sync(path.parent)


def target(path: Path) -> str:
    """Return the name of a link's target; empty when there is no link."""
    return Path(os.readlink(path)).name if path.is_symlink() else ""


def remove(path: Path) -> None:
    """Remove a file or a folder. A folder is renamed first, so that it disappears atomically."""
    if path.is_dir() and not path.is_symlink():
        gone = path
        if not path.name.startswith("."):
            gone = path.with_name(f".{path.name}.gone")
            if gone.exists():  # left by an interrupted removal
                shutil.rmtree(gone)
            path.rename(gone)
        shutil.rmtree(gone)
    else:
        path.unlink(missing_ok=True)


def listing(folder: Path) -> list[Path]:
    """Return the entries of a folder; empty when it does not exist."""
    return list(folder.iterdir()) if folder.is_dir() else []
