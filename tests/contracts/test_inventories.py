"""Inventories set what roles read, and nothing else."""

import re

import pytest

from helpers import repository
from helpers.repository import ROLES, ROOT

INVENTORIES = sorted(path.parent for path in ROOT.glob("inventory/*/hosts.y*ml"))
KNOWN = set().union(*(repository.options(role) for role in ROLES))


def variables(inventory):
    """Return the variables of an inventory: those of its groups, hosts and variable files."""
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
def test_every_variable_is_read_by_a_role_or_by_another(inventory):
    given = variables(inventory)
    own = {name for name in given if not name.startswith("ansible_")} - KNOWN
    unknown = own - repository.used_in(given)
    assert not unknown, f"nothing reads {sorted(unknown)}"


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=str)
def test_pages_set_variables_that_roles_read(page):
    named = set(re.findall(rf"\b(?:{'|'.join(ROLES)})_[a-z_]+(?=:)", page.read_text()))
    assert not named - KNOWN


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
def test_secrets_are_made_or_asked_for_and_never_written_down(inventory):
    for name, value in variables(inventory).items():
        if re.search(r"password|secret_key|api_key|token", name):
            assert "{{" in str(value) or str(value).startswith("$ANSIBLE_VAULT"), name
