"""Error messages for invalid variables."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

SECRET = re.compile(r"app_(\w+?)(_password)?$")
SECRETS = [f"app_{name}_password" for name in ("database", "migration", "cache", "queue")]
SECRETS += ["app_secret_key"]
Check = dict[str, Any]


def check(variable: str, ok: Any, reason: str, **more: Any) -> Check:
    """Return a check for `problems`, with an optional `value`, `example` and `remedy`."""
    return {"variable": variable, "ok": bool(ok), "reason": reason, **more}


def none_of(variable: str, invalid: list[Any], reason: str, **more: Any) -> Check:
    """Return the check that there are no invalid values; the message shows them."""
    return check(variable, not invalid, reason, value=invalid, **more)


def problems(
    checks: Iterable[Mapping[str, Any]], inventory_dir: str, values: Mapping[str, Any] | None = None
) -> list[str]:
    """Return an error message for each check that failed.

    A check is a dictionary: `ok` (boolean), `variable`, `value`, `reason` and `example`. Omit
    `value` and `example` for secrets, and `example` where no single value fits all. The
    message names the file of the inventory that sets the variable; a non-empty `remedy` replaces
    that if no variable of this inventory solves the problem. `values` has the values of variables
    for checks without one, except for secrets.
    """
    return [_message(check, inventory_dir, values or {}) for check in checks if not _is_ok(check)]


def renamed_variables(
    variables: Container[str], renamed: Mapping[str, str], inventory_dir: str
) -> list[str]:
    """Return an error message for each variable that is set by its old name."""
    return [
        f"{old} is now {new}. Rename it in {file_of(old, inventory_dir)}"
        for old, new in renamed.items()
        if old in variables
    ]


def _is_ok(check: Mapping[str, Any]) -> bool:
    ok = check["ok"]
    if not isinstance(ok, bool):
        raise TypeError(f"the check of {check['variable']} gives {ok!r} instead of true or false")
    return ok


def _message(check: Mapping[str, Any], inventory_dir: str, values: Mapping[str, Any]) -> str:
    name = check["variable"]
    if name in values and name not in SECRETS:
        check = {"value": values[name], **check}
    subject = f"{name} is {_yaml(check['value'])}" if "value" in check else name
    message = f"{subject}: {check['reason']}. "
    if check.get("remedy"):
        return message + check["remedy"]
    message += f"Set it in {file_of(name, inventory_dir)}"
    if "example" in check:
        message += f", for example: {name}: {_yaml(check['example'])}"
    elif name in SECRETS:
        message += f", for example: {name}: {generated(name)}"
    return message


def generated(name: str) -> str:
    """Return the lookup that reads a generated secret from the file that a rotation changes."""
    file = SECRET.sub(r"\1.txt", name)
    form = "length=40, chars=['ascii_letters', 'digits']"
    lookup = f"lookup('ansible.builtin.password', inventory_dir ~ '/secrets/{file}', {form})"
    return f'"{{{{ {lookup} }}}}"'


def file_of(name: str, inventory_dir: str) -> str:
    """Return the inventory file that sets a variable or, if none does, the one that should."""
    setting = re.compile(rf"""(^|[{{,])\s*["']?{re.escape(name)}["']?\s*:""", re.MULTILINE)
    folder = Path(inventory_dir)
    for path in (*sorted(folder.glob("*_vars/**/*.y*ml")), *sorted(folder.glob("*.y*ml"))):
        if path.is_file() and setting.search(path.read_text(errors="replace")):
            return str(path)
    file = "secrets" if name in SECRETS else "main"
    return f"{inventory_dir}/group_vars/all/{file}.yml"


def _yaml(value: Any) -> str:
    """Return a value as one line of YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "null"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    text = str(value)
    return text if text else '""'


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"problems": problems, "renamed_variables": renamed_variables}
