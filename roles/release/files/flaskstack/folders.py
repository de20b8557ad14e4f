"""Folders of the app's, made and removed by root through no link that the app can make."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from pathlib import Path
from typing import Any

from flaskstack.errors import ValidationError

READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
MODE = 0o750
LINKS = 40  # as many as the kernel follows


def make(params: dict[str, Any]) -> dict[str, Any]:
    """Make folders that belong to the app; those above them that are missing are root's.

    Keys: folders (absolute paths), user, root (of the app), check (optional: change nothing).
    Raises ValidationError when a link, file or folder of another account is in the way, or when a
    folder outside of `root` is root's and not empty.
    """
    owner, check, changed = pwd.getpwnam(params["user"]), params.get("check", False), False
    for folder in params["folders"]:
        own = Path(folder).is_relative_to(params["root"])
        changed |= give(folder, owner, check, own)
    return {"changed": changed}


def give(folder: str, owner: pwd.struct_passwd, check: bool, own: bool) -> bool:
    """Make one folder; return whether that changed something."""
    here, path, made = descend(folder, make=not check)
    if here is None:
        return True
    try:
        if not own and os.fstat(here).st_uid == 0 and set(os.listdir(here)) - {"lost+found"}:
            raise ValidationError(
                f"{path} (app_writable_paths or app_instance_path) is root's and not empty: it may "
                "be the system's or another app's. Nothing was changed. Name another one; if it is "
                f"this app's, sudo chown {owner.pw_name}: {path}"
            )
        return grant(here, path, owner, check) or made
    finally:
        os.close(here)


def descend(folder: str | Path, make: bool) -> tuple[int | None, Path, bool]:
    """Open a folder through no link but root's; return its descriptor, path, and if it was made.

    What is missing is made, or there is no descriptor.
    """
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
            if new and not make:
                os.close(here)
                return None, path, False
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
    except BaseException:
        os.close(here)
        raise
    return here, path, made


def remove(params: dict[str, Any]) -> dict[str, Any]:
    """Remove folders that belong to the app, with all that they hold.

    Keys: folders (absolute paths), user, check (optional: change nothing). One of another owner
    stays, and so does what a link leads to.
    """
    owner, changed = pwd.getpwnam(params["user"]).pw_uid, False
    for folder in map(Path, params["folders"]):
        here, _, _ = descend(folder.parent, make=False)
        if here is None:
            continue
        try:
            if exists(folder.name, here) and status(folder.name, here).st_uid == owner:
                changed = True
                if not params.get("check"):
                    shutil.rmtree(folder.name, dir_fd=here)
        finally:
            os.close(here)
    return {"changed": changed}


def status(name: str, folder: int) -> os.stat_result:
    """Return what is known of something in an open folder; of a link itself."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def grant(folder: int, path: Path, owner: pwd.struct_passwd, check: bool) -> bool:
    """Give an open folder to its owner; return whether it was another's."""
    found = os.fstat(folder)
    if found.st_uid not in (0, owner.pw_uid):
        raise in_the_way(path, f"belongs to another user ({found.st_uid})")
    if (found.st_uid, found.st_gid) == owner[2:4] and stat.S_IMODE(found.st_mode) == MODE:
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
        status(name, folder)
    except FileNotFoundError:
        return False
    return True


def of_root(folder: int) -> bool:
    """Say whether nobody but root can put something into an open folder."""
    found = os.fstat(folder)
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def in_the_way(path: Path, what: str) -> ValidationError:
    """Return what is said of a path that is not what it should be."""
    return ValidationError(
        f"{path} {what}, where a folder of the app belongs (app_shared_paths, "
        "app_writable_paths …). Nothing was changed. Move it away, and what it holds "
        f"into a folder in its place: sudo mv {path} {path}.old"
    )
