"""What the tests of every scenario share."""

import os

import pytest

from asking import Database, Site
from deploying import Operator, Versions
from repository import ROOT


@pytest.fixture(scope="module")
def address(host):
    """The server's address, to reach it from outside."""
    return host.ansible.get_variables()["ansible_host"]


@pytest.fixture
def site(address):
    """Return the site under the name that it has in inventory/local."""
    return Site(address, "localhost")


@pytest.fixture
def sql(host):
    """Return the database as its operator sees it."""
    return Database(host)


@pytest.fixture(scope="session")
def operator():
    """Return who deploys."""
    return Operator(os.environ["MOLECULE_INVENTORY_FILE"])


@pytest.fixture(scope="session")
def version(tmp_path_factory):
    """Return a function that makes a new version of the sample app."""
    return Versions(ROOT / "sample_app", tmp_path_factory.mktemp("versions"))
