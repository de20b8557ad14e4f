"""Renamed variables: new names exist, old ones are unused and listed in UPGRADING.md."""

import document_roles
from helpers import repository
from helpers.repository import ROLES

RENAMED = repository.load("roles/app/vars/main.yml")["__app_renamed"]
OPTIONS = set().union(*(repository.options(role) for role in ROLES))


def test_new_names_are_role_options_and_old_ones_are_not():
    assert not set(RENAMED.values()) - OPTIONS
    assert not RENAMED.keys() & OPTIONS


def test_upgrading_lists_old_names():
    page = document_roles.UPGRADING
    assert document_roles.documented(page) == page.read_text(), "run tools/document_roles.py"
