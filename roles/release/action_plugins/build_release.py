"""Build a release of an app on the controller, in Ansible's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ansible.module_utils
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase

PARTS = str(Path(__file__).resolve().parents[1] / "module_utils")


class ActionModule(ActionBase):
    """Do what a module would, without the second that a Python of its own takes to start."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Any:
        """Return what the release is."""
        if PARTS not in ansible.module_utils.__path__:  # the role's are no package
            ansible.module_utils.__path__.append(PARTS)
        from ansible.module_utils.app_build import OPTIONS, build
        from ansible.module_utils.release_refusal import RefusedError

        result = super().run(tmp, task_vars)
        checked = ArgumentSpecValidator(OPTIONS).validate(self._task.args)
        if checked.error_messages:
            return result | {"failed": True, "msg": "; ".join(checked.error_messages)}
        wanted = checked.validated_parameters
        try:
            result |= build(wanted, look=self._task.check_mode)
        except RefusedError as error:
            result |= {"failed": True, "msg": error.advice(wanted["settings"])}
        return remove_values(result, {wanted["index_url"]} - {""})
