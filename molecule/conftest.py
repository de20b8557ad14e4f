"""What the tests of every scenario share."""

import os

import pytest

from deploying import Operator, Versions
from repository import ROOT


@pytest.fixture
def address(host):
    """The server's address, to reach it from outside."""
    return host.ansible.get_variables()["ansible_host"]


@pytest.fixture(scope="session")
def operator():
    """Return who deploys."""
    return Operator(os.environ["MOLECULE_INVENTORY_FILE"])


@pytest.fixture
def version(tmp_path):
    """Return a function that makes a new version of the sample app."""
    return Versions(ROOT / "sample_app", tmp_path)
