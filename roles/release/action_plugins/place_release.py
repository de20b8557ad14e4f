"""Bring a release's archive to the host for the module `place_release`."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """Copy the archive into the task's own temporary folder, and run the module on it."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Any:
        """Return what the module says."""
        result = super().run(tmp, task_vars)
        shell = self._connection._shell
        try:
            archive = shell.join_path(self._make_tmp_path(), "release.tar.gz")
            self._transfer_file(self._task.args["archive"], archive)
            arguments = self._task.args | {"archive": archive}
            result.update(self._execute_module("place_release", arguments, task_vars=task_vars))
        finally:
            self._remove_tmp_path(shell.tmpdir)
        return result
