"""Render a role's templates without a host, with Ansible's template engine."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, generate_ansible_template_vars, trust_as_template

from helpers import repository
from helpers.repository import ROOT, ansible_plugins
from role_settings import role_options, role_problems, role_variables

FACTS = {
    "distribution": "Debian",
    "distribution_release": "trixie",
    "distribution_major_version": "13",
    "distribution_version": "13",
    "os_family": "Debian",
    "architecture": "x86_64",
    "hostname": "host",
    "memtotal_mb": 960,
    "processor_vcpus": 1,
    "python": {"version": {"major": 3, "minor": 13}},
}


@cache
def _loader() -> DataLoader:
    ansible_plugins()
    loader = DataLoader()
    loader.set_basedir(str(ROOT))
    return loader


def _with_dependencies(role: str) -> list[str]:
    entries = repository.load(f"roles/{role}/meta/main.yml").get("dependencies", [])
    names = [entry["role"] for entry in entries]
    names += ["gunicorn"] if role == "release" else []  # it imports tasks of this role
    return list(dict.fromkeys([*(n for each in names for n in _with_dependencies(each)), role]))


def _trusted(value: Any) -> Any:
    """Allow templates in a test's values, like in those of an inventory."""
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: _trusted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_trusted(item) for item in value]
    return value


def _templar(role: str, template: str, variables: dict[str, Any]) -> tuple[Templar, Path]:
    path = ROOT / "roles" / role / "templates" / template
    facts = FACTS | variables.pop("ansible_facts", {})
    known: dict[str, Any] = {
        "ansible_facts": facts,
        "ansible_check_mode": False,
        "group_names": ["app", "cache", "database", "edge", "queue"],
        "inventory_dir": str(ROOT / "inventory/local"),
        "inventory_hostname": "host",
        "role_path": str(ROOT / "roles" / role),
        "app_name": "shop",
    }
    known["groups"] = {name: ["host"] for name in ("all", *known["group_names"])}
    known["hostvars"] = {"host": known}
    for kind in ("defaults", "vars"):
        known |= role_variables(_with_dependencies(role), kind, _loader())
    if template:
        known |= generate_ansible_template_vars(path=template, fullpath=str(path))
    known |= _trusted(variables)
    return Templar(loader=_loader(), variables=known), path


def render(role: str, template: str, **variables: Any) -> str:
    """Return the text that the role would write on a host.

    `template` is a path below `roles/<role>/templates`. Variables are the defaults and vars of the
    role and its dependencies, then those given.
    """
    templar, path = _templar(role, template, variables)
    templar = templar.copy_with_new_env(
        searchpath=[str(path.parent), str(ROOT / "roles" / role / "templates")],
        available_variables=templar.available_variables,
    )
    return templar.template(
        trust_as_template(path.read_text()),
        escape_backslashes=False,
        overrides={"trim_blocks": True, "lstrip_blocks": False},
    )


def evaluate(role: str, expression: str, **variables: Any) -> Any:
    """Return the value of an expression in the role."""
    templar, _ = _templar(role, "", variables)
    return templar.template(trust_as_template("{{ " + expression + " }}"))


def problems(*roles: str, **variables: Any) -> list[str]:
    """Return messages about invalid settings of roles, evaluated in the last of these roles."""
    return _validated(roles, variables)[0]


def typed_settings(*roles: str, **variables: Any) -> dict[str, Any]:
    """Return the settings of roles with values of the types in their argument specs."""
    return _validated(roles, variables)[1]["__app_settings"]


def _validated(
    roles: tuple[str, ...], variables: dict[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    templar, _ = _templar(roles[-1], "", variables)
    known = templar.available_variables
    defaults, options = role_variables(roles, "defaults", _loader()), role_options(roles, _loader())
    return role_problems(options, defaults, known, templar), known
