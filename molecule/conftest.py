"""What the tests of every scenario share."""

import pytest


@pytest.fixture
def address(host):
    """The server's address, to reach it from outside."""
    return host.ansible.get_variables()["ansible_host"]
