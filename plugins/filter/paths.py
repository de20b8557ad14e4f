"""Validate the paths of an app, and list its directories and links."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from posixpath import dirname, normpath
from typing import Any

# First parts of paths outside the release, and paths that the release role creates.
NOT_IN_RELEASE = {"", ".", "..", ".venv", ".release.env"}
# Directories that belong to the system or that the sandbox hides, with everything below them.
SYSTEM = {
    *("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "root"),
    *("run", "sbin", "sys", "tmp", "usr"),
}
# Shared directories: an app may use a subdirectory, but not the directory itself.
SHARED = {"/", "/data", "/media", "/mnt", "/opt", "/srv", "/var"}
# System directories in /var. Those in VAR_NAMED have a subdirectory for each program.
VAR_NAMED = {"cache", "lib", "log", "opt", "spool"}
VAR = VAR_NAMED | {"backups", "local", "lock", "mail", "run", "tmp"}
# No systemd option makes these visible to a unit with ProtectHome=.
HIDDEN = ("/home", "/root", "/run/user")
PLAIN = re.compile(r"(?:/[A-Za-z0-9._-]+)+")


def outside_release(paths: Iterable[str]) -> list[str]:
    """Return the paths that are outside the release or that the release role creates."""
    return [path for path in paths if not path.isprintable() or _first(path) in NOT_IN_RELEASE]


def _first(path: str) -> str:
    return normpath(path).split("/")[0]


def overlapping(paths: Iterable[str]) -> list[str]:
    """Return duplicate paths and paths below another path of the list."""
    plain = [PurePosixPath(normpath(path)) for path in paths]
    return [
        str(path)
        for number, path in enumerate(plain)
        if set(path.parents) & set(plain) or path in plain[:number]
    ]


def outermost(paths: Iterable[str], within: Iterable[str] = ()) -> list[str]:
    """Return the paths that are not below another path of the list or of `within`.

    The owner of a directory can replace a subdirectory with a link, which root would follow.
    """
    plain = dict.fromkeys(PurePosixPath(normpath(path)) for path in paths)
    above = {*plain, *(PurePosixPath(normpath(path)) for path in within)}
    return [str(path) for path in plain if not set(path.parents) & above]


def hidden_paths(paths: Iterable[str]) -> list[str]:
    """Return the absolute paths that the sandbox always hides, and the root directory."""
    return [path for path in paths if _is_hidden(PurePosixPath(normpath(path)))]


def _is_hidden(path: PurePosixPath) -> bool:
    return str(path) in ("/", "//") or any(path.is_relative_to(folder) for folder in HIDDEN)


def invalid_roots(paths: Iterable[str]) -> list[str]:
    """Return the paths that cannot be an app's root directory."""
    return [path for path in paths if not _is_root(path)]


def _is_root(path: str) -> bool:
    folder = PurePosixPath(path)
    if not PLAIN.fullmatch(path) or normpath(path) != path or _is_system_path(folder):
        return False
    return folder.parts[1] != "var" or folder.parts[2] not in VAR


def forbidden_paths(paths: Iterable[str], app_root: str, app_name: str) -> list[str]:
    """Return the absolute paths that must not be writable by the app at `app_root`."""
    return [path for path in paths if _is_forbidden(path, PurePosixPath(app_root), app_name)]


def _is_forbidden(path: str, app_root: PurePosixPath, app_name: str) -> bool:
    folder = PurePosixPath(normpath(path))
    if not path.isprintable() or set(path) & set(" :%\"'\\") or _is_system_path(folder):
        return True
    if folder.parts[1] == "var" and folder.parts[2] in VAR:
        return folder.parts[2] not in VAR_NAMED or folder.parts[3] != app_name
    if folder.is_relative_to(app_root):
        return not folder.is_relative_to(app_root / "shared") or folder == app_root / "shared"
    return app_root.is_relative_to(folder)


def _is_system_path(folder: PurePosixPath) -> bool:
    parts = folder.parts
    if len(parts) < 2 or parts[1] in SYSTEM or str(folder) in SHARED:
        return True
    return parts[1] == "var" and len(parts) < 4


def app_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the paths of an app, from its variables by name.

    Keys: `links` (path in a release: target outside it), `shared` and `generated` (relative paths
    of directories and of `app_files` in a release), `absolute_dests` (of other `app_files`),
    `shared_folders` (below shared/, parents first), `writable` (directories elsewhere) and
    `instance`.
    """
    shared_root = f"{settings['app_root']}/shared"
    instance = settings["app_instance_path"]
    relative = [instance] if instance and not instance.startswith("/") else []
    shared = _normal([*settings["app_shared_paths"], *relative])
    files = [normpath(path) for path in settings["app_shared_files"]]
    dests = [normpath(file["dest"]) for file in settings["app_files"]]
    generated = [dest for dest in dests if not dest.startswith("/")]
    writable = settings["app_writable_paths"]
    folders = {*shared, *_normal(path for path in writable if not path.startswith("/"))}
    folders |= {"files"} if files else set()
    folders |= {f"files/{dirname(path)}" for path in files if dirname(path)}
    return {
        "shared": shared,
        "generated": generated,
        "absolute_dests": [dest for dest in dests if dest.startswith("/")],
        "links": {path: f"{shared_root}/{path}" for path in shared}
        | {path: f"{shared_root}/files/{path}" for path in files}
        | {path: f"/etc/{settings['app_name']}/files/{path}" for path in generated},
        "shared_folders": [f"{shared_root}/{path}" for path in sorted(folders)],
        "writable": _normal(path for path in [*writable, instance] if path.startswith("/")),
        "instance": normpath(f"{shared_root}/{instance}" if relative else instance)
        if instance
        else "",
    }


def _normal(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(normpath(path) for path in paths))


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, object]:
        """Return the filters by name."""
        return {"app_paths": app_paths, "outermost": outermost}
