#!/usr/bin/python
"""Write and remove authorized keys without following links in home directories."""

from __future__ import annotations

import errno
import os
import pwd
import secrets
import stat
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: login_keys
short_description: Authorized keys of login users
description:
  - Writes C(.ssh/authorized_keys) of users, or removes it and closes the home of a user who leaves.
  - A home is its owner's, who may put a link into it at any moment. So every name is looked up in a
    folder that is open already, and no link is followed.
options:
  users:
    description: C(name), C(authorized) (the keys, a line each) and C(present) of each user.
    type: list
    elements: dict
    required: true
author: Flaskstack
"""
HEADER = "# Managed by Ansible, role ssh.\n"
FILE = "authorized_keys"
NO_FOLDER = "is a link or a file; make it a folder, or remove it"


class RefusedError(Exception):
    """The keys cannot be written."""


class Home:
    """An account's home directory. Only .ssh and the key file are created in it."""

    def __init__(self, account: pwd.struct_passwd, opened: ExitStack) -> None:
        """Open the home directory, and .ssh in it if it exists."""
        self.path, self.owner = account.pw_dir, (account.pw_uid, account.pw_gid)
        self._opened = opened
        self.folder = self._open(self.path)
        self.holder = os.fstat(self.folder).st_uid
        self.ssh: int | None = None
        self.obstacle: RefusedError | None = None
        try:
            self.ssh = self._open(".ssh")
        except FileNotFoundError:
            pass
        except RefusedError as error:
            self.obstacle = error

    def _open(self, name: str) -> int:
        within = self.folder if name == ".ssh" else None
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            folder = os.open(name, flags, dir_fd=within)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                raise
            raise RefusedError(f"{os.path.join(self.path, name)} {NO_FOLDER}") from error
        self._opened.callback(os.close, folder)
        return folder

    def state(self) -> str:
        """Return owners, modes and text of the current keys."""
        if self.ssh is None:
            return ""
        folder = os.fstat(self.ssh)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open(FILE, flags, dir_fd=self.ssh)
        except OSError:
            return _state(folder, None, "")
        with open(file, errors="replace") as opened:
            found = os.fstat(file)
            return _state(folder, found, opened.read() if stat.S_ISREG(found.st_mode) else "")

    def wanted(self, text: str) -> str:
        """Return the intended value of `state`."""
        uid, gid = self.owner
        return f"{uid} {gid} 700\n{uid} {gid} 600\n{text}"

    def write(self, text: str) -> None:
        """Write the keys atomically."""
        if self.ssh is None:
            os.mkdir(".ssh", 0o700, dir_fd=self.folder)
            self.ssh = self._open(".ssh")
        os.fchown(self.ssh, *self.owner)
        os.fchmod(self.ssh, 0o700)
        new = f".{FILE}.{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with open(os.open(new, flags, 0o600, dir_fd=self.ssh), "w") as file:
            file.write(text)
            os.fchown(file.fileno(), *self.owner)
            os.fchmod(file.fileno(), 0o600)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, FILE, src_dir_fd=self.ssh, dst_dir_fd=self.ssh)


def _state(folder: os.stat_result, file: os.stat_result | None, text: str) -> str:
    owners = "".join(
        f"{item.st_uid} {item.st_gid} {stat.S_IMODE(item.st_mode):o}\n"
        for item in (folder, file)
        if item is not None
    )
    return owners + text


def enter(
    account: pwd.struct_passwd, authorized: str, numbers: set[int], *, change: bool
) -> tuple[str, str]:
    """Write the keys of an account; return its state before and after.

    Raises:
        RefusedError: the keys cannot be written safely.
    """
    with ExitStack() as opened:
        try:
            home = Home(account, opened)
        except FileNotFoundError as error:
            raise RefusedError(f"{account.pw_dir} is missing") from error
        if home.holder != account.pw_uid and home.holder in numbers - {0}:
            raise RefusedError(f"{account.pw_dir} belongs to another user")
        if home.obstacle:
            raise home.obstacle
        text = HEADER + authorized
        before, after = home.state(), home.wanted(text)
        closed = home.holder not in {account.pw_uid, 0} or _closed(os.fstat(home.folder))
        if closed and account.pw_uid:
            before += "\nnot the user's"
            if change:
                os.fchown(home.folder, *home.owner)
        if change and before != after:
            home.write(text)
        return before, after


def leave(account: pwd.struct_passwd, *, shared: bool, change: bool) -> tuple[str, str]:
    """Remove an account's keys, and close its home to a later account with the same uid."""
    with ExitStack() as opened:
        try:
            home = Home(account, opened)
        except (FileNotFoundError, RefusedError):
            return "", ""
        before = home.state()  # empty if .ssh is a link: those keys may be another user's
        if change and home.ssh is not None and FILE in os.listdir(home.ssh):
            os.unlink(FILE, dir_fd=home.ssh)
        if change and not shared and home.holder == account.pw_uid:
            os.fchown(home.folder, 0, 0)
            os.fchmod(home.folder, 0o700)
        return before, ""


def _closed(found: os.stat_result) -> bool:
    """Return whether `leave` has closed a home."""
    return (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, 0o700)


def apply(
    user: dict[str, Any], accounts: Sequence[pwd.struct_passwd], *, change: bool
) -> tuple[str, str]:
    """Apply a user's keys, or compare if not `change`; return the state before and after."""
    account = next((item for item in accounts if item.pw_name == user["name"]), None)
    if account is None:
        return "", user["authorized"] if user["present"] else ""
    if user["present"]:
        _validate(user["authorized"])
        numbers = {item.pw_uid for item in accounts}
        return enter(account, user["authorized"], numbers, change=change)
    shared = sum(item.pw_dir == account.pw_dir for item in accounts) > 1
    return leave(account, shared=shared, change=change)


def _validate(authorized: str) -> None:
    command = ["ssh-keygen", "-l", "-f", "-"]
    done = subprocess.run(command, input=authorized, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RefusedError(f"ssh-keygen cannot read them: {done.stdout}{done.stderr}".strip())


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"users": {"type": "list", "elements": "dict", "required": True}},
        supports_check_mode=True,
    )
    accounts, changed = pwd.getpwall(), []
    for user in module.params["users"]:
        try:
            before, after = apply(user, accounts, change=not module.check_mode)
        except (RefusedError, OSError) as error:
            module.fail_json(msg=f"The keys of {user['name']} cannot be written: {error}")
        if before != after:
            header = f"keys of {user['name']}"
            changed.append(
                {"before": before, "after": after, "before_header": header, "after_header": header}
            )
    module.exit_json(changed=bool(changed), diff=changed)


if __name__ == "__main__":
    main()
