"""Create and remove folders of the app as root, without following links that the app can create.

systemd-tmpfiles is as careful with links, but takes over folders of other users.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flaskstack.errors import ValidationError

READ = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
MODE = 0o750
LINKS = 40  # to follow at most, as in the kernel


def make(params: dict[str, Any]) -> dict[str, Any]:
    """Create folders owned by the app; missing parents are owned by root.

    Keys: folders (absolute paths), user, root (of the app), check (optional: change nothing).
    Raises ValidationError when a link, file or folder of another account is in the way, or when a
    folder outside of `root` is owned by root and not empty.
    """
    owner, check, changed = pwd.getpwnam(params["user"]), params.get("check", False), False
    for folder in params["folders"]:
        inside = Path(folder).is_relative_to(params["root"])
        changed |= give(folder, owner, check, inside)
    return {"changed": changed}


def give(folder: str, owner: pwd.struct_passwd, check: bool, inside: bool) -> bool:
    """Create one folder and give it to `owner`. Return whether anything changed.

    `inside` is true below the app's root, where a folder of root may have content.
    """
    with opened(folder, create=not check) as (descriptor, path, created):
        if descriptor is None:
            return True
        found = os.fstat(descriptor)
        if not inside and found.st_uid == 0 and set(os.listdir(descriptor)) - {"lost+found"}:
            raise ValidationError(
                f"{path} (app_writable_paths or app_instance_path) is root's and not empty: it may "
                "be the system's or another app's. Nothing was changed. Name another one; if it is "
                f"this app's, sudo chown {owner.pw_name}: {path}"
            )
        if found.st_uid not in (0, owner.pw_uid):
            raise in_the_way(path, f"belongs to another user ({found.st_uid})")
        wrong = (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (*owner[2:4], MODE)
        if wrong and not check:
            os.fchown(descriptor, owner.pw_uid, owner.pw_gid)
            os.fchmod(descriptor, MODE)
        return wrong or created


def remove(params: dict[str, Any]) -> dict[str, Any]:
    """Remove folders owned by the app, with their content.

    Keys: folders (absolute paths), user, check (optional: change nothing). Folders of other
    owners and the targets of links are kept.
    """
    owner, changed = pwd.getpwnam(params["user"]).pw_uid, False
    for folder in map(Path, params["folders"]):
        with opened(folder.parent, create=False) as (parent, _, _):
            if parent is not None and owner_of(folder.name, parent) == owner:
                changed = True
                if not params.get("check"):
                    shutil.rmtree(folder.name, dir_fd=parent)
    return {"changed": changed}


@contextmanager
def opened(folder: str | Path, create: bool) -> Iterator[tuple[int | None, Path, bool]]:
    """Open a folder, following only root's links; yield descriptor, path, and if it was created.

    With `create`, missing folders are created. Otherwise the descriptor is None if one is missing.
    """
    parts, descriptor, path = list(Path(folder).parts), os.open("/", READ), Path("/")
    created, links = False, 0
    try:
        while parts:
            part = parts.pop(0)
            path /= part
            if link := target(part, descriptor):
                links += 1
                if not is_protected(descriptor) or links > LINKS:
                    raise in_the_way(path, "is a link")
                parts, path = [*Path(link).parts, *parts], path.parent
                continue
            new = owner_of(part, descriptor) is None
            if new and not create:
                yield None, path, False
                return
            if new:
                os.mkdir(part, 0o700, dir_fd=descriptor)
            try:
                below = os.open(part, READ, dir_fd=descriptor)
            except OSError as error:
                raise in_the_way(path, "is not a folder") from error
            os.close(descriptor)
            descriptor, created = below, created or new
            if new:
                os.fchmod(descriptor, 0o751)
        yield descriptor, path, created
    finally:
        os.close(descriptor)


def target(name: str, folder: int) -> str:
    """Return the target of a link; empty when it is not a link."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return ""


def owner_of(name: str, folder: int) -> int | None:
    """Return the owner of an entry of an open folder; None when it does not exist."""
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid
    return None


def is_protected(folder: int) -> bool:
    """Return whether only root can create entries in an open folder."""
    found = os.fstat(folder)
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def in_the_way(path: Path, reason: str) -> ValidationError:
    """Return the error for a path that is not a folder of the app."""
    return ValidationError(
        f"{path} {reason}, where a folder of the app belongs (app_shared_paths, "
        "app_writable_paths …). Nothing was changed. Move it away, and its content into a folder "
        f"in its place: sudo mv {path} {path}.old"
    )
