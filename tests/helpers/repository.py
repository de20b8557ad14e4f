"""The content of the repository, for tests that compare its parts."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.plugins import loader as plugin_loader
from jinja2 import Environment, meta

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.parents[1].name for path in ROOT.glob("roles/*/meta/main.yml"))
# The one next to this Python, regardless of PATH.
ANSIBLE_PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
# Keywords that take an expression without braces.
BARE = {"when", "that", "until", "changed_when", "failed_when", "loop_control.label"}
# Tasks that run a role.
ROLE_TASK = re.compile(r"(ansible\.builtin\.)?(import|include)_role")


class Everything(dict):
    """Accept every filter and test name in Jinja; Ansible defines them."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, default) or bool


ENVIRONMENT = Environment(autoescape=False, extensions=["jinja2.ext.do"])
ENVIRONMENT.filters = Everything()
ENVIRONMENT.tests = Everything()


class Loader(yaml.SafeLoader):
    """YAML as Ansible reads it, with tagged values as plain ones."""


Loader.add_constructor("!vault", lambda loader, node: loader.construct_scalar(node))
Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))


@cache
def load(path: str | Path) -> Any:
    """Return the content of a YAML file of the repository; None if it does not exist."""
    file = ROOT / path
    return yaml.load(file.read_text(), Loader) if file.is_file() else None


@cache
def ansible_plugins() -> Any:
    """Return Ansible's plugin loaders, configured for its own plugins and this repository's."""
    plugin_loader.init_plugin_loader()
    plugin_loader.filter_loader.add_directory(str(ROOT / "plugins/filter"))
    return plugin_loader


def defaults(role: str) -> dict[str, Any]:
    """Return a role's defaults without templating."""
    return load(f"roles/{role}/defaults/main.yml") or {}


def options(role: str) -> dict[str, Any]:
    """Return the options of all entry points of a role."""
    specs = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]
    return {name: option for spec in specs.values() for name, option in spec["options"].items()}


def dependencies(role: str) -> set[str]:
    entries = load(f"roles/{role}/meta/main.yml").get("dependencies", [])
    direct = {entry["role"] if isinstance(entry, dict) else entry for entry in entries}
    return direct.union(*(dependencies(name) for name in direct))


def yaml_files(role: str, *folders: str) -> list[Path]:
    """Return a role's YAML files in these directories."""
    return [
        path
        for folder in folders
        for path in sorted((ROOT / "roles" / role / folder).rglob("*.yml"))
    ]


def templates(role: str) -> list[Path]:
    folder = ROOT / "roles" / role / "templates"
    return sorted(path for path in folder.rglob("*") if path.is_file())


@cache
def used_by(path: Path) -> set[str]:
    """Return the variables that a file of a role uses."""
    return used_in(load(path)) if path.suffix == ".yml" else used_in_text(path.read_text())


def used_in(value: Any, key: str = "") -> set[str]:
    """Return the variables in the expressions of a YAML value."""
    if isinstance(value, dict):
        local = set(value["vars"]) if isinstance(value.get("vars"), dict) else set()
        return set().union(*(used_in(item, name) for name, item in value.items())) - local
    if isinstance(value, list):
        return set().union(*(used_in(item, key) for item in value))
    if not isinstance(value, str):
        return set()
    expression = "{{ " + value + " }}" if key in BARE and "{{" not in value else value
    return used_in_text(expression.replace("\\", ""))


def used_in_text(text: str) -> set[str]:
    """Return the variables that a template uses and does not set."""
    return meta.find_undeclared_variables(ENVIRONMENT.parse(text))


def included_in(text: str) -> set[str]:
    """Return the templates that a template includes."""
    return {name for name in meta.find_referenced_templates(ENVIRONMENT.parse(text)) if name}


def tasks_in(value: Any) -> list[dict[str, Any]]:
    """Return the tasks of a task file, including those in blocks."""
    found = []
    for task in value or []:
        found.append(task)
        for section in ("block", "rescue", "always"):
            found += tasks_in(task.get(section))
    return found


def roles_in(playbook: str | list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the roles that a playbook or plays run, in order, each with its first task file."""
    entries = []
    for play in load(playbook) if isinstance(playbook, str) else playbook:
        for task in tasks_in(play.get("tasks")):
            for entry in (value for key, value in task.items() if ROLE_TASK.fullmatch(key)):
                entries.append((entry["name"], entry.get("tasks_from", "main")))
    return entries


SITE_ROLES = load("playbooks/vars/roles.yml")["site_roles"]
