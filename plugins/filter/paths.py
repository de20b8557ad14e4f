"""Find the paths of a setting that lead where they must not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from posixpath import normpath

# What makes a folder a release.
OWN = (".venv", ".release.env")
# What belongs to the system, or is hidden from the app by its sandbox, with all that is below.
SYSTEM = {
    *("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "proc", "root"),
    *("run", "sbin", "sys", "tmp", "usr"),
}
# What many share: not these folders themselves, but those below.
SHARED = {"/", "/data", "/media", "/mnt", "/opt", "/srv", "/var"}


def leaving(paths: Iterable[str]) -> list[str]:
    """Return the paths that are not inside a release, or are one of its own."""
    return [path for path in paths if _leaves(path)]


def _leaves(path: str) -> bool:
    first = PurePosixPath(normpath(path)).parts[:1]
    return not str(path).isprintable() or first in [("..",), ("/",), ("//",), (), *_each(OWN)]


def _each(names: Iterable[str]) -> list[tuple[str]]:
    return [(name,) for name in names]


def overlapping(paths: Iterable[str]) -> list[str]:
    """Return the paths that are named twice, or that are below another one of them."""
    plain = [PurePosixPath(normpath(path)) for path in paths]
    return [
        str(path)
        for number, path in enumerate(plain)
        if set(path.parents) & set(plain) or path in plain[:number]
    ]


def not_for_apps(paths: Iterable[str], app_root: str) -> list[str]:
    """Return the absolute paths that the app at `app_root` must not be given to write to."""
    return [path for path in paths if _is_not_for(path, PurePosixPath(app_root))]


def _is_not_for(path: str, app_root: PurePosixPath) -> bool:
    folder = PurePosixPath(normpath(path))
    if not path.isprintable() or set(path) & set(" %\"'\\"):
        return True
    if len(folder.parts) < 2 or folder.parts[1] in SYSTEM or str(folder) in SHARED:
        return True
    if folder.parts[1] == "var" and len(folder.parts) < 4:
        return True
    if folder.is_relative_to(app_root):
        return not folder.is_relative_to(app_root / "shared") or folder == app_root / "shared"
    return app_root.is_relative_to(folder)


class FilterModule:
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, object]:
        """Return the filters of this file by name."""
        return {"leaving": leaving, "overlapping": overlapping, "not_for_apps": not_for_apps}
