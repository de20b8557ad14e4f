"""Inventories set only variables that roles read."""

import re

import pytest
import yaml

import plan_sizes
from helpers import repository
from helpers.repository import ROLES, ROOT

INVENTORIES = sorted(path.parent for path in ROOT.glob("inventory/*/hosts.y*ml"))
KNOWN = set().union(*(repository.options(role) for role in ROLES))


def variables(inventory):
    """Return the variables of an inventory, from groups, hosts and variable files."""
    found = {}
    for path in sorted(inventory.rglob("*_vars/**/*.yml")):
        found |= repository.load(path) or {}
    groups = [{"children": repository.load(inventory / "hosts.yml")}]
    while groups:
        group = groups.pop() or {}
        found |= group.get("vars") or {}
        for settings in (group.get("hosts") or {}).values():
            found |= settings or {}
        groups += (group.get("children") or {}).values()
    return found


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
def test_every_variable_is_read_by_a_role_or_another_variable(inventory):
    given = variables(inventory)
    own = {name for name in given if not name.startswith("ansible_")} - KNOWN
    unknown = own - repository.used_in(given)
    assert not unknown, f"nothing reads {sorted(unknown)}"


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=str)
def test_pages_set_variables_that_roles_read(page):
    named = set(re.findall(rf"\b(?:{'|'.join(ROLES)})_[a-z_]+(?=:)", page.read_text()))
    assert not named - KNOWN


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
def test_secrets_are_generated_or_encrypted_and_never_in_plain_text(inventory):
    for name, value in variables(inventory).items():
        if re.search(r"password|secret_key|api_key|token", name):
            assert "{{" in str(value) or str(value).startswith("$ANSIBLE_VAULT"), name


COMMENTED = re.compile(r"^# ([a-z_]+: .+?)(?:  # .*)?$", re.MULTILINE)
EXAMPLE = (ROOT / "inventory/droplet.example/group_vars/all/main.yml").read_text()
DEFAULTS = {"gunicorn_worker_memory": plan_sizes.WORKER}
for role in ROLES:
    DEFAULTS = repository.defaults(role) | DEFAULTS


@pytest.mark.parametrize("line", COMMENTED.findall(EXAMPLE))
def test_commented_options_of_the_example_show_their_defaults(line):
    ((name, value),) = yaml.safe_load(line).items()
    planned = re.search(r"plan\.\w+ \| default\((\w+)\)", str(DEFAULTS[name]))
    assert value == (int(planned[1]) if planned else DEFAULTS[name])
