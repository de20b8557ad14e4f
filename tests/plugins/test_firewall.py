"""Firewall rules follow from the groups and addresses of the inventory."""

from __future__ import annotations

import pytest

from firewall import contains_address, firewall_services, hosts_without_address

SETTINGS = {
    "https": True,
    "web_sources": [],
    "database_port": 3306,
    "cache_port": 6379,
    "queue_port": 6380,
}


def fleet(**hosts):
    """Return hostvars and groups: app-1, app-2 and data, which has all tiers except app."""
    hostvars = {
        "app-1": {"firewall_addresses": ["10.0.0.1"]},
        "app-2": {"firewall_addresses": ["10.0.0.2", "2001:db8::/64"]},
        "data": {"mysql_bind_address": "10.0.0.9", "redis_bind_address": "10.0.0.9"},
    }
    for name, values in hosts.items():
        hostvars[name.replace("_", "-")] |= values
    apps, data = ["app-1", "app-2"], ["data"]
    groups = {"edge": apps, "app": apps, "database": data, "cache": data, "queue": data}
    return hostvars, groups


def sources(rules):
    """Return the sources of the rules, by port."""
    return {f"{rule['protocol']}/{rule['port']}": rule["sources"] for rule in rules}


def test_each_tier_is_open_to_the_addresses_of_the_app_hosts():
    rules = firewall_services(*fleet(), "data", SETTINGS)
    both = ["10.0.0.1", "10.0.0.2"]
    assert sources(rules) == {"tcp/3306": both, "tcp/6379": both, "tcp/6380": both}
    assert [rule["comment"] for rule in rules] == ["database", "cache", "queue"]


def test_edge_is_open_to_all_or_to_web_sources():
    rules = firewall_services(*fleet(), "app-1", SETTINGS)
    assert sources(rules) == {"tcp/80": [], "tcp/443": [], "udp/443": []}
    behind = SETTINGS | {"https": False, "web_sources": ["10.0.0.100"]}
    assert sources(firewall_services(*fleet(), "app-1", behind)) == {"tcp/80": ["10.0.0.100"]}


def test_unix_sockets_need_no_rules():
    hostvars, groups = fleet(data={"mysql_bind_address": "", "redis_bind_address": ""})
    assert firewall_services(hostvars, groups, "data", SETTINGS) == []
    hostvars["app-1"] = {}
    assert hosts_without_address(hostvars, groups, "data") == []


def test_host_of_all_tiers_is_open_to_other_app_hosts():
    hostvars, groups = fleet(app_1={"mysql_bind_address": "10.0.0.1"})
    groups = groups | {"database": ["app-1"]}
    rules = firewall_services(hostvars, groups, "app-1", SETTINGS)
    assert sources(rules)["tcp/3306"] == ["10.0.0.2"]


def test_only_the_configured_redis_instances_are_open():
    hostvars, groups = fleet(data={"redis_instances": ["queue"], "mysql_bind_address": ""})
    assert list(sources(firewall_services(hostvars, groups, "data", SETTINGS))) == ["tcp/6380"]


def test_the_ports_are_those_of_the_app():
    settings = SETTINGS | {"database_port": 3307, "cache_port": "6400"}
    rules = firewall_services(*fleet(), "data", settings)
    assert list(sources(rules)) == ["tcp/3307", "tcp/6400", "tcp/6380"]


def test_only_addresses_of_the_ip_version_of_the_tier_are_sources():
    hostvars, groups = fleet(data={"mysql_bind_address": "2001:db8:9::9"})
    rules = firewall_services(hostvars, groups, "data", SETTINGS)
    assert sources(rules)["tcp/3306"] == ["2001:db8::/64"]
    assert hosts_without_address(hostvars, groups, "data") == ["app-1"]


def test_hosts_without_address():
    hostvars, groups = fleet(app_1={"firewall_addresses": []})
    assert hosts_without_address(hostvars, groups, "data") == ["app-1"]
    assert hosts_without_address(hostvars, groups, "app-2") == []


@pytest.mark.parametrize(
    ("networks", "address", "expected"),
    [
        ([], "203.0.113.7", True),
        (["203.0.113.0/24"], "203.0.113.7", True),
        (["203.0.113.0/24"], "::ffff:203.0.113.7", True),
        (["203.0.113.0/24"], "198.51.100.1", False),
        (["203.0.113.0/24"], "2001:db8::1", False),
        (["fe80::/10"], "fe80::1%eth0", True),
    ],
)
def test_contains_address(networks, address, expected):
    assert contains_address(networks, address) is expected
