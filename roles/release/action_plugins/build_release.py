"""Build a release of an app on the controller, in Ansible's process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase

PROGRAM = str(Path(__file__).resolve().parents[1] / "files")


class ActionModule(ActionBase):
    """Build a release; with `built`, pack the result of build commands on a host."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Any:
        """Return the release's description."""
        if PROGRAM not in sys.path:
            sys.path.append(PROGRAM)
        from flaskstack.controller.build import OPTIONS, build, repack
        from flaskstack.errors import ValidationError

        result = super().run(tmp, task_vars)
        checked = ArgumentSpecValidator(OPTIONS).validate(self._task.args)
        if checked.error_messages:
            return result | {"failed": True, "msg": "; ".join(checked.error_messages)}
        params = checked.validated_parameters
        try:
            if params["built"]:
                repack(params["built"], params["links"])
                return result | {"changed": True}
            params["dry_run"] |= self._task.check_mode
            result |= build(params)
        except ValidationError as error:
            result |= {"failed": True, "msg": error.advice(params["settings"])}
        return remove_values(result, {params["index_url"]} - {""})
