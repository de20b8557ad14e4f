"""Validate the settings of roles on the controller, without a task per role."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.errors import (
    AnsibleValidationError,
    ArgumentTypeError,
    ArgumentValueError,
    RequiredError,
)
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.template import Templar

sys.path.append(str(Path(__file__).parents[1] / "filter"))

from problems import problems

ROLES = Path(__file__).resolve().parents[2] / "roles"
SECRET = re.compile("password|secret|token|key")
# Example values by type, for options without a default.
VALID = {"bool": True, "dict": {}, "float": 1.0, "int": 1, "list": []}
MISSING = "must be set"


class ActionModule(ActionBase):
    """Fail with a message for each invalid setting of the hosts' roles.

    Arguments: `roles` (names), `variables` (names of the roles' variables to return).
    """

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Any:
        """Fail with the problems as message, or return `variables` and `packages`.

        `variables` has the values of the requested variables by name, without undefined ones.
        `packages` lists the packages in `__<role>_packages` of all roles.
        """
        result = super().run(tmp, task_vars)
        roles, names = self._task.args["roles"], self._task.args.get("variables", [])
        defaults = role_variables(roles, "defaults", self._loader)
        variables = defaults | role_variables(roles, "vars", self._loader) | (task_vars or {})
        templar = self._templar.copy_with_new_env(available_variables=variables)
        found = role_problems(role_options(roles, self._loader), defaults, variables, templar)
        if found:
            return result | {"failed": True, "msg": "\n".join(found)}
        packages = [templar.template(variables.get(f"__{role}_packages", [])) for role in roles]
        return result | {
            "packages": [package for each in packages for package in each],
            "variables": {n: templar.template(variables[n]) for n in names if n in variables},
        }


def role_variables(roles: Iterable[str], kind: str, loader: DataLoader) -> dict[str, Any]:
    """Return the `defaults` or `vars` of roles, without templating."""
    found: dict[str, Any] = {}
    for folder in (ROLES / role / kind for role in roles):
        for file in (folder / "main.yml", *sorted((folder / "main").glob("*.yml"))):
            if file.is_file():
                found |= _load(file, loader) or {}
    return found


def role_options(roles: Iterable[str], loader: DataLoader) -> dict[str, dict[str, Any]]:
    """Return the options in the argument specs of roles, by role and name."""
    specs = {role: _load(ROLES / role / "meta/argument_specs.yml", loader) for role in roles}
    return {r: next(iter(spec["argument_specs"].values()))["options"] for r, spec in specs.items()}


def role_problems(
    roles: Mapping[str, Mapping[str, Any]],
    defaults: Mapping[str, Any],
    variables: dict[str, Any],
    templar: Templar,
) -> list[str]:
    """Return messages about variables that contradict the specs.

    If there are none, return the messages of the roles' own checks, in `__<role>_problems`.
    `roles` has the options of each role, as `role_options` returns them. The options in `variables`
    are replaced by values of the types in the specs.
    """
    checks, settings = [], {}
    for options in roles.values():
        for name, option in options.items():
            checks += _spec_checks(name, option, defaults, variables, templar)
            settings[name] = variables.get(name)
    missing = [check for check in checks if check["reason"] == MISSING]
    if checks:
        return problems(missing or checks, variables["inventory_dir"])
    variables["__app_settings"] = settings
    found = []
    for role in roles:
        variables["role_path"] = str(ROLES / role)
        found += templar.template(variables.get(f"__{role}_problems", []))
    return found


def _load(file: Path, loader: DataLoader) -> Any:
    return loader.load_from_file(str(file), unsafe=True, trusted_as_template=True)  # no copy


def _spec_checks(
    name: str,
    option: Mapping[str, Any],
    defaults: Mapping[str, Any],
    variables: dict[str, Any],
    templar: Templar,
) -> Iterator[dict[str, Any]]:
    """Validate one variable, so that a message is about that variable, and convert its value."""
    given = {}
    failed = {"ok": False, "variable": name}
    try:
        if name in variables:
            given[name] = templar.template(variables[name])
    except AnsibleError as error:
        yield failed | {"reason": f"cannot be evaluated: {' '.join(str(error).split())}"}
        return
    # The validator rejects null only for options that have a default.
    option = option | ({"default": defaults[name]} if name in defaults else {})
    result = ArgumentSpecValidator({name: option}).validate(given)
    if result.error_messages:
        shown = {"value": given[name]} if given and not SECRET.search(name) else {}
        failed |= {"reason": _reason(result.errors[0], option)} | shown
        yield failed | _example(option, templar.template(defaults.get(name)))
    elif given:
        variables[name] = _without_none(result.validated_parameters[name])


def _without_none(value: Any) -> Any:
    """Omit suboptions that have neither a value nor a default."""
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    if isinstance(value, dict):
        return {name: item for name, item in value.items() if item is not None}
    return value


def _reason(error: AnsibleValidationError, option: Mapping[str, Any]) -> str:
    if " found in " not in error.msg:  # messages about suboptions contain it
        if isinstance(error, RequiredError):
            return MISSING
        if isinstance(error, ArgumentValueError):
            return f"must be one of {', '.join(map(str, option['choices']))}"
        if isinstance(error, ArgumentTypeError):
            return f"must be of type {option['type']}"
    return error.msg.rstrip(".")


def _example(option: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """Return `{example: …}` with the default or else a valid value; empty without either."""
    value = default or option.get("choices", [None])[0] or VALID.get(option["type"])
    if not default and "options" in option:
        required = {name: each for name, each in option["options"].items() if each.get("required")}
        value = {name: _example(each, None).get("example", "…") for name, each in required.items()}
        value = [value] if option["type"] == "list" else value
    return {} if value is None else {"example": value}
