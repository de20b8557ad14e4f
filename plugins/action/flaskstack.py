"""Call the program `flaskstack` on a host, and install it there if it is missing."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from ansible import constants as C
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

PROGRAM = Path(__file__).resolve().parents[2] / "roles/release/files"


class ActionModule(ActionBase):
    """Copy files and the program to the host, and run the module of the same name there."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Any:
        """Return the result of the call.

        Arguments: `call` (name), `params` (dict), `files` (paths on the controller; each key
        becomes a parameter with the path on the host), `templates` (list of `path`, `src` and
        `vars`, rendered into the parameter `files`: texts by path; with `static`, `src` is a
        file of the role, which is used as it is), `secrets` (masked in results).
        """
        sys.path[:0] = [str(PROGRAM)] if str(PROGRAM) not in sys.path else []
        from flaskstack.controller.holder import holder
        from flaskstack.controller.program import pack
        from flaskstack.errors import ValidationError

        result = super().run(tmp, task_vars)
        call, params = self._task.args["call"], copy.deepcopy(self._task.args.get("params", {}))
        requester = holder()
        params |= {"by": requester["by"], "check": self._task.check_mode}
        for part in (params, params.get("lock", {})):
            if "lock_for" in part:
                part["holder"] = requester | {"release": part["lock_for"]}
        if "templates" in self._task.args:
            params["files"] = self.rendered(self._task.args["templates"], task_vars)
        name, content = pack()
        try:
            for key, path in self._task.args.get("files", {}).items():
                params[key] = self._transfer_file(path, self.remote(key))
            arguments = {"program": name, "call": call, "input": json.dumps(params)}
            arguments["secrets"] = self._task.args.get("secrets", [])
            answer = self._execute_module("flaskstack", arguments, task_vars=task_vars)
            if answer.get("missing"):
                with NamedTemporaryFile(dir=C.DEFAULT_LOCAL_TMP) as local:  # hosts run in parallel
                    local.write(content)
                    local.flush()
                    arguments["source"] = self._transfer_file(local.name, self.remote(name))
                answer = self._execute_module("flaskstack", arguments, task_vars=task_vars)
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        if answer.get("failed") and answer.get("example"):
            settings = f"{task_vars['inventory_dir']}/group_vars/all/main.yml"
            answer["msg"] = ValidationError(answer["msg"], answer["example"]).advice(settings)
        return result | answer

    def remote(self, name: str) -> str:
        """Return the temporary path of a file on the host."""
        shell = self._connection._shell
        if not shell.tmpdir:
            self._make_tmp_path()
        return shell.join_path(shell.tmpdir, name)

    def rendered(
        self, templates: list[dict[str, Any]], task_vars: dict[str, Any]
    ) -> dict[str, str]:
        """Return rendered templates by path. Lookup `template` copies all variables each time."""
        roots = [*task_vars.get("ansible_search_path", []), self._loader.get_basedir()]
        search = [path for root in roots for path in (f"{root}/templates", root)]
        texts = {}
        for template in templates:
            if template.get("static"):
                source = self._find_needle("files", template["src"])
                texts[template["path"]] = self._loader.get_text_file_contents(source)
                continue
            source = self._find_needle("templates", template["src"])
            data = trust_as_template(self._loader.get_text_file_contents(source))
            known = {"ansible_managed": C.config.get_config_value("DEFAULT_MANAGED_STR")}
            known |= task_vars | template.get("vars", {})
            templar = self._templar.copy_with_new_env(
                searchpath=[str(Path(source).parent), *search], available_variables=known
            )
            texts[template["path"]] = templar.template(data, escape_backslashes=False)
        return texts
