"""Create and remove folders of the app as root, without following links the app could plant."""

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
LINKS = 40  # limit of the kernel


def make(params: dict[str, Any]) -> dict[str, Any]:
    """Create folders owned by the app; missing parents are owned by root.

    Keys: folders (absolute paths), user, root (of the app), check (optional: change nothing).
    Raises ValidationError when a link, file or folder of another account is in the way, or when a
    folder outside of `root` is owned by root and not empty.
    """
    owner, check, changed = pwd.getpwnam(params["user"]), params.get("check", False), False
    for folder in params["folders"]:
        own = Path(folder).is_relative_to(params["root"])
        changed |= give(folder, owner, check, own)
    return {"changed": changed}


def give(folder: str, owner: pwd.struct_passwd, check: bool, own: bool) -> bool:
    """Create one folder; return whether anything changed."""
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
    """Open a folder, following only root's links; return descriptor, path, and if it was created.

    With `make`, missing folders are created. Otherwise the descriptor is None if one is missing.
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
    """Remove folders owned by the app, with their content.

    Keys: folders (absolute paths), user, check (optional: change nothing). Folders of other
    owners and the targets of links are kept.
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
    """Return the status of an entry of an open folder, without following a link."""
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def grant(folder: int, path: Path, owner: pwd.struct_passwd, check: bool) -> bool:
    """Set owner and mode of an open folder; return whether they differed."""
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
    """Return the target of a link; empty when it is not a link."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return ""


def exists(name: str, folder: int) -> bool:
    """Return whether an open folder has an entry of that name."""
    try:
        status(name, folder)
    except FileNotFoundError:
        return False
    return True


def of_root(folder: int) -> bool:
    """Return whether only root can create entries in an open folder."""
    found = os.fstat(folder)
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def in_the_way(path: Path, what: str) -> ValidationError:
    """Return the error for a path that is not a folder of the app."""
    return ValidationError(
        f"{path} {what}, where a folder of the app belongs (app_shared_paths, "
        "app_writable_paths …). Nothing was changed. Move it away, and what it holds "
        f"into a folder in its place: sudo mv {path} {path}.old"
    )
