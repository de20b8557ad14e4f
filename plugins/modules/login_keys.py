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
  - Writes C(.ssh/authorized_keys) of present users. For absent users it removes that file and makes
    root the owner of the home directory, so that a later account with the same UID cannot read it.
  - Users can replace files in their home by links at any moment. So every name is looked up in a
    directory that is open already, and no link is followed.
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
CLOSED = (0, 0o700)  # owner and mode of the home directory of a removed user


class UnsafeError(Exception):
    """The keys cannot be written safely."""


class Home:
    """An account's home directory. Only .ssh and the key file are created in it."""

    def __init__(self, account: pwd.struct_passwd, opened: ExitStack) -> None:
        """Open the home directory, and .ssh in it if that exists."""
        self.path, self.owner = account.pw_dir, (account.pw_uid, account.pw_gid)
        self._opened = opened
        self.folder = self._open(self.path)
        self.ssh: int | None = None
        self.ssh_error: UnsafeError | None = None
        try:
            self.ssh = self._open(".ssh")
        except FileNotFoundError:
            pass
        except UnsafeError as error:
            self.ssh_error = error

    def _open(self, name: str) -> int:
        parent = self.folder if name == ".ssh" else None
        try:
            folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                raise
            path = os.path.join(self.path, name)
            message = f"{path} is a link or a file; make it a directory, or remove it"
            raise UnsafeError(message) from error
        self._opened.callback(os.close, folder)
        return folder

    def read(self) -> str:
        """Return owners, modes and text of the current keys."""
        if self.ssh is None:
            return ""
        state = _owner_and_mode(os.fstat(self.ssh))
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open(FILE, flags, dir_fd=self.ssh)
        except OSError:
            return state
        with open(file, errors="replace") as keys:
            found = os.fstat(file)
            text = keys.read() if stat.S_ISREG(found.st_mode) else ""
            return state + _owner_and_mode(found) + text

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


def _owner_and_mode(found: os.stat_result) -> str:
    return f"{found.st_uid} {found.st_gid} {stat.S_IMODE(found.st_mode):o}\n"


def write_keys(
    account: pwd.struct_passwd, authorized: str, uids: set[int], *, change: bool
) -> tuple[str, str]:
    """Write the keys of an account, and return the state before and after.

    Raises:
        UnsafeError: .ssh is a link, or the home is missing or belongs to another account.
    """
    with ExitStack() as opened:
        try:
            home = Home(account, opened)
        except FileNotFoundError as error:
            raise UnsafeError(f"{account.pw_dir} is missing") from error
        found = os.fstat(home.folder)
        if found.st_uid != account.pw_uid and found.st_uid in uids - {0}:
            raise UnsafeError(f"{account.pw_dir} belongs to another user")
        if home.ssh_error:
            raise home.ssh_error
        text, (uid, gid) = HEADER + authorized, home.owner
        before, after = home.read(), f"{uid} {gid} 700\n{uid} {gid} 600\n{text}"
        # The home was closed by `remove_keys`, or its owner no longer exists.
        closed = (found.st_uid, stat.S_IMODE(found.st_mode)) == CLOSED
        if uid and (closed or found.st_uid not in {uid, 0}):
            before += "\nhome of another owner"
            if change:
                os.fchown(home.folder, *home.owner)
        if change and before != after:
            home.write(text)
        return before, after


def remove_keys(account: pwd.struct_passwd, *, shared: bool, change: bool) -> tuple[str, str]:
    """Remove an account's keys, and close its home unless other accounts share it."""
    with ExitStack() as opened:
        try:
            home = Home(account, opened)
        except (FileNotFoundError, UnsafeError):
            return "", ""
        before = home.read()  # empty if .ssh is a link: those keys may be another user's
        if change and home.ssh is not None and FILE in os.listdir(home.ssh):
            os.unlink(FILE, dir_fd=home.ssh)
        if change and not shared and os.fstat(home.folder).st_uid == account.pw_uid:
            owner, mode = CLOSED
            os.fchown(home.folder, owner, owner)
            os.fchmod(home.folder, mode)
        return before, ""


def apply(
    user: dict[str, Any], accounts: Sequence[pwd.struct_passwd], *, change: bool
) -> tuple[str, str]:
    """Apply a user's keys, or compare if not `change`; return the state before and after."""
    account = next((item for item in accounts if item.pw_name == user["name"]), None)
    if account is None:
        return "", user["authorized"] if user["present"] else ""
    if user["present"]:
        _validate(user["authorized"])
        uids = {item.pw_uid for item in accounts}
        return write_keys(account, user["authorized"], uids, change=change)
    shared = sum(item.pw_dir == account.pw_dir for item in accounts) > 1
    return remove_keys(account, shared=shared, change=change)


def _validate(authorized: str) -> None:
    command = ["ssh-keygen", "-l", "-f", "-"]
    result = subprocess.run(command, input=authorized, capture_output=True, text=True, check=False)
    if result.returncode:
        raise UnsafeError(f"ssh-keygen cannot read them: {result.stdout}{result.stderr}".strip())


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
        except (UnsafeError, OSError) as error:
            module.fail_json(msg=f"The keys of {user['name']} cannot be written: {error}")
        if before != after:
            header = f"keys of {user['name']}"
            changed.append(
                {"before": before, "after": after, "before_header": header, "after_header": header}
            )
    module.exit_json(changed=bool(changed), diff=changed)


if __name__ == "__main__":
    main()
