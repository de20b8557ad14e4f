"""Folders of the app's, made by root without following a link that the app can make."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import Any

from flaskstack.errors import RefusedError

READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
MODE = 0o750
LINKS = 40  # as many as the kernel follows


def make(wanted: dict[str, Any]) -> dict[str, Any]:
    """Make folders that belong to the app; those above them that are missing are root's.

    Keys: folders (absolute paths), user, root (of the app), check (optional: change nothing).
    Raises RefusedError when something that others than root can put there is in the way, and when
    a folder outside of `root` is root's and not empty.
    """
    owner, check, changed = pwd.getpwnam(wanted["user"]), wanted.get("check", False), False
    for folder in wanted["folders"]:
        own = Path(folder).is_relative_to(wanted["root"])
        changed |= give(folder, owner, check, own)
    return {"changed": changed}


def give(folder: str, owner: pwd.struct_passwd, check: bool, own: bool) -> bool:
    """Make one folder; return whether that changed something."""
    rest, here, path = list(Path(folder).parts), os.open("/", READ), Path("/")
    made, links = False, 0
    try:
        while rest:
            part = rest.pop(0)
            path /= part
            if link := target(part, here):
                links += 1
                if not of_root(here) or links > LINKS:
                    raise in_the_way(path, "is a link")
                rest, path = [*Path(link).parts, *rest], path.parent
                continue
            new = not exists(part, here)
            if new and check:
                return True
            if new:
                os.mkdir(part, 0o700, dir_fd=here)
            try:
                below = os.open(part, READ, dir_fd=here)
            except OSError as error:
                raise in_the_way(path, "is no folder") from error
            os.close(here)
            here, made = below, made or new
            if new:
                os.fchmod(here, 0o751)
        if not own and os.fstat(here).st_uid == 0 and set(os.listdir(here)) - {"lost+found"}:
            raise RefusedError(
                f"{path} (app_writable_paths or app_instance_path) is root's and not empty: it may "
                "be the system's or another app's. Nothing was changed. Name another one; if it is "
                f"this app's, sudo chown {owner.pw_name}: {path}"
            )
        return grant(here, path, owner, check) or made
    finally:
        os.close(here)


def grant(folder: int, path: Path, owner: pwd.struct_passwd, check: bool) -> bool:
    """Give an open folder to its owner; return whether it was another's."""
    status = os.fstat(folder)
    if status.st_uid not in (0, owner.pw_uid):
        raise in_the_way(path, f"belongs to another user ({status.st_uid})")
    if (status.st_uid, status.st_gid) == owner[2:4] and stat.S_IMODE(status.st_mode) == MODE:
        return False
    if not check:
        os.fchown(folder, owner.pw_uid, owner.pw_gid)
        os.fchmod(folder, MODE)
    return True


def target(name: str, folder: int) -> str:
    """Return where a link leads; empty when there is none."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return ""


def exists(name: str, folder: int) -> bool:
    """Say whether something of that name is in an open folder."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def of_root(folder: int) -> bool:
    """Say whether nobody but root can put something into an open folder."""
    status = os.fstat(folder)
    return status.st_uid == 0 and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def in_the_way(path: Path, what: str) -> RefusedError:
    """Return what is said of a path that is not what it should be."""
    return RefusedError(
        f"{path} {what}, where a folder of the app's is wanted (app_shared_paths, "
        "app_writable_paths …). Nothing was changed. Move it away, and what it holds "
        f"into a folder in its place: sudo mv {path} {path}.old"
    )
