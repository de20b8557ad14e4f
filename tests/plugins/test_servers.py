"""Hosts are found by any variable with their address."""

from __future__ import annotations

import pytest

from servers import hosts_at

HOSTVARS = {
    "data-1": {"ansible_host": "203.0.113.5", "mysql_bind_address": "10.0.0.5"},
    "data-2": {"mysql_tls_names": ["db.example", "10.0.0.6"]},
    "data-3": {"mysql_bind_address": ""},
}


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("data-3", ["data-3"]),
        ("203.0.113.5", ["data-1"]),
        ("10.0.0.5", ["data-1"]),
        ("db.example", ["data-2"]),
        ("10.0.0.9", []),
        ("", []),
    ],
)
def test_hosts_at(address, names):
    found = hosts_at(HOSTVARS, list(HOSTVARS), [address], "mysql_bind_address", "mysql_tls_names")
    assert found == names


def test_host_with_two_addresses_is_found_once():
    found = hosts_at(HOSTVARS, list(HOSTVARS), ["data-1", "203.0.113.5", ""])
    assert found == ["data-1"]


def test_other_hosts_and_variables_are_ignored():
    assert hosts_at(HOSTVARS, ["data-2"], ["10.0.0.5"], "mysql_bind_address") == []
