"""Write and remove files of a host in one call, which is faster than a task for each."""

from __future__ import annotations

import grp
from pathlib import Path
from typing import Any

from flaskstack.files import read, write


def write_files(params: dict[str, Any]) -> dict[str, Any]:
    """Write `files` (texts by path) and remove the files `absent`; create missing directories.

    `modes` has octal modes by path (0644 is the default), `groups` the names of groups. With
    `check` nothing is changed. Returns the paths that were `written` and `removed`.
    """
    modes, groups = params.get("modes", {}), params.get("groups", {})
    written = []
    for name, text in params["files"].items():
        path, mode = Path(name), int(modes.get(name, "0644"), 8)
        group = group_id(groups[name]) if name in groups else 0
        if not is_current(path, text, mode, group):
            written.append(name)
            if not params.get("check"):
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, text, mode, group)
    removed = [name for name in params.get("absent", []) if Path(name).is_file()]
    for name in removed:
        if not params.get("check"):
            Path(name).unlink()
    changed = bool(written or removed)
    return {"changed": changed, "written": written, "removed": removed}


def group_id(name: str) -> int:
    """Return a group's id; -1 in check mode before its package is installed."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return -1


def is_current(path: Path, text: str, mode: int, group: int) -> bool:
    """Return whether a file has this content, mode and group."""
    if read(path) != text:
        return False
    state = path.stat()
    return state.st_mode & 0o7777 == mode and group in (-1, state.st_gid)
