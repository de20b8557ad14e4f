"""Hosts are found by any variable with their address."""

from __future__ import annotations

import pytest

from servers import certificates_to_copy, server_hosts

HOSTVARS = {
    "data-1": {"ansible_host": "203.0.113.5", "mysql_bind_address": "10.0.0.5"},
    "data-2": {"mysql_tls_names": ["db.example", "10.0.0.6"]},
    "data-3": {"mysql_bind_address": ""},
    "other": {"mysql_bind_address": "10.0.0.7"},
}
GROUPS = {"database": ["data-1", "data-2", "data-3"], "queue": ["data-1"]}


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("data-3", ["data-3"]),
        ("203.0.113.5", ["data-1"]),
        ("10.0.0.5", ["data-1"]),
        ("db.example", ["data-2"]),
        ("10.0.0.7", []),
        ("", []),
    ],
)
def test_server_hosts(address, names):
    assert server_hosts(HOSTVARS, GROUPS, "mysql", address) == names


def test_host_with_two_addresses_is_found_once():
    assert server_hosts(HOSTVARS, GROUPS, "redis", "data-1", "203.0.113.5") == ["data-1"]


def test_loopback_is_no_host_of_the_inventory():
    variables = {"data-1": {"mysql_bind_address": "127.0.0.1"}}
    assert server_hosts(variables, {"database": ["data-1"]}, "mysql", "127.0.0.1") == []


@pytest.mark.parametrize(("used", "count"), [("/etc/shop/ca.pem", 2), ("/etc/own.pem", 0)])
def test_certificate_is_copied_unless_another_file_is_used(used, count):
    file = {"hosts": ["a", "b"], "src": "/etc/s.pem", "dest": "/etc/shop/ca.pem", "used": used}
    copies = [[host, "/etc/s.pem", "/etc/shop/ca.pem"] for host in "ab"]
    assert certificates_to_copy([file]) == copies[:count]
