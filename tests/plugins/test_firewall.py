"""Who may reach which port follows from the groups and from what the hosts say of themselves."""

from __future__ import annotations

import pytest

from firewall import admits, by_family, firewall_services, firewall_strangers, not_addresses

WORDS = {
    "https": True,
    "web_sources": [],
    "database_port": 3306,
    "cache_port": 6379,
    "queue_port": 6380,
}


def facts(**interfaces):
    """Return a host's facts; each interface is a list of addresses with their prefix."""
    known = {"interfaces": ["lo", *interfaces]}
    known["lo"] = {"ipv4": {"address": "127.0.0.1", "prefix": "8", "netmask": "255.0.0.0"}}
    for name, addresses in interfaces.items():
        ipv4 = [_address(text) for text in addresses if ":" not in text]
        ipv6 = [_address(text) | {"scope": "global"} for text in addresses if ":" in text]
        link = {"address": "fe80::1", "prefix": "64", "scope": "link"}
        known[name] = {"ipv6": [*ipv6, link]}
        if ipv4:
            known[name] |= {"ipv4": ipv4[0], "ipv4_secondaries": ipv4[1:]}
    return {"ansible_facts": known}


def _address(text):
    address, prefix = text.split("/")
    return {"address": address, "prefix": prefix}


def fleet(**hosts):
    """Return hostvars and groups of app-1, app-2 and data, which has all tiers below the app."""
    hostvars = {
        "app-1": facts(eth0=["203.0.113.1/24"], eth1=["10.0.0.1/24"]),
        "app-2": facts(eth0=["203.0.113.2/24", "2001:db8:2::2/64"], eth1=["10.0.0.2/24"]),
        "data": facts(eth0=["203.0.113.9/24", "2001:db8:9::9/64"], eth1=["10.0.0.9/24"])
        | {"mysql_bind_address": "10.0.0.9", "redis_bind_address": "10.0.0.9"},
    }
    for name, values in hosts.items():
        hostvars[name.replace("_", "-")] |= values
    apps, data = ["app-1", "app-2"], ["data"]
    groups = {"edge": apps, "app": apps, "database": data, "cache": data, "queue": data}
    return hostvars, groups


def sources(rules):
    """Return who may come in, by port."""
    return {f"{rule['protocol']}/{rule['port']}": rule["sources"] for rule in rules}


def test_each_tier_is_open_to_the_apps_hosts_at_the_addresses_it_sees():
    rules = firewall_services(*fleet(), "data", WORDS)
    both = ["10.0.0.1", "10.0.0.2"]
    assert sources(rules) == {"tcp/3306": both, "tcp/6379": both, "tcp/6380": both}
    assert [rule["comment"] for rule in rules] == ["database", "cache", "queue"]


def test_the_edge_is_open_to_everyone_or_to_those_named():
    rules = firewall_services(*fleet(), "app-1", WORDS)
    assert sources(rules) == {"tcp/80": [], "tcp/443": [], "udp/443": []}
    behind = WORDS | {"https": False, "web_sources": ["10.0.0.100"]}
    assert sources(firewall_services(*fleet(), "app-1", behind)) == {"tcp/80": ["10.0.0.100"]}


def test_what_listens_on_a_socket_needs_no_port():
    hostvars, groups = fleet(data={"mysql_bind_address": "", "redis_bind_address": ""})
    assert firewall_services(hostvars, groups, "data", WORDS) == []
    assert firewall_strangers(hostvars, groups, "data") == []


def test_a_host_of_all_tiers_is_open_to_the_others():
    hostvars, groups = fleet(app_1={"mysql_bind_address": "10.0.0.1"})
    groups = groups | {"database": ["app-1"]}
    assert sources(firewall_services(hostvars, groups, "app-1", WORDS))["tcp/3306"] == ["10.0.0.2"]


def test_only_the_instances_that_run():
    hostvars, groups = fleet(data={"redis_instances": ["queue"], "mysql_bind_address": ""})
    assert list(sources(firewall_services(hostvars, groups, "data", WORDS))) == ["tcp/6380"]


def test_ports_are_the_apps():
    words = WORDS | {"database_port": 3307, "cache_port": "6400"}
    assert list(sources(firewall_services(*fleet(), "data", words))) == [
        "tcp/3307",
        "tcp/6400",
        "tcp/6380",
    ]


def test_beyond_a_router_it_is_all_addresses_of_that_family():
    hostvars, groups = fleet(data={"mysql_bind_address": "2001:db8:9::9"})
    hostvars["app-1"] = facts(eth0=["203.0.113.1/24", "2001:db8:1::1/64", "2001:db8:1::2/64"])
    rules = firewall_services(hostvars, groups, "data", WORDS)
    assert sources(rules)["tcp/3306"] == ["2001:db8:1::1", "2001:db8:1::2", "2001:db8:2::2"]


def test_and_the_address_that_a_translated_host_is_reached_at():
    hostvars, groups = fleet(
        app_1=facts(eth0=["192.168.7.2/24"]) | {"ansible_host": "198.51.100.7"},
        app_2={"ansible_host": "app-2.example.org"},
        data={"mysql_bind_address": "203.0.113.9"},
    )
    found = sources(firewall_services(hostvars, groups, "data", WORDS))["tcp/3306"]
    assert found == ["192.168.7.2", "198.51.100.7", "203.0.113.2"]


def test_networks_inside_a_host_are_no_address_of_it():
    hostvars, groups = fleet()
    inside = {"docker0": ["172.17.0.1/16"], "br-12ab": ["172.18.0.1/16"]}
    hostvars["app-1"] = facts(eth0=["198.51.100.1/24"], **inside)
    assert "172" not in str(firewall_services(hostvars, groups, "data", WORDS))


def test_secondary_addresses_and_odd_interface_names_count():
    hostvars, groups = fleet()
    known = {"interfaces": ["eth-1"], "eth_1": {"ipv4": _address("10.0.0.7/24")}}
    known["eth_1"]["ipv4_secondaries"] = [{"address": "10.0.0.8", "netmask": "255.255.255.0"}]
    hostvars["app-1"] = {"ansible_facts": known}
    found = sources(firewall_services(hostvars, groups, "data", WORDS))["tcp/3306"]
    assert found == ["10.0.0.7", "10.0.0.8", "10.0.0.2"]


def test_the_inventory_knows_better():
    hostvars, groups = fleet(app_1={"firewall_addresses": ["10.9.0.0/28"]})
    found = sources(firewall_services(hostvars, groups, "data", WORDS))["tcp/3306"]
    assert found == ["10.9.0.0/28", "10.0.0.2"]


def test_a_host_that_was_never_asked_is_a_stranger():
    hostvars, groups = fleet()
    hostvars["app-1"] = {"ansible_host": "203.0.113.1"}
    assert firewall_strangers(hostvars, groups, "data") == ["app-1"]
    assert firewall_strangers(hostvars, groups, "app-2") == []
    hostvars["app-1"]["firewall_addresses"] = ["10.0.0.1"]
    assert firewall_strangers(hostvars, groups, "data") == []


def test_a_host_without_an_address_of_the_tiers_family_is_a_stranger():
    hostvars, groups = fleet(data={"mysql_bind_address": "2001:db8:9::9"})
    assert firewall_strangers(hostvars, groups, "data") == ["app-1"]


def test_families_apart_and_no_address_twice():
    found = by_family(["10.0.0.5", "10.0.0.0/24", "2001:db8::1/64", "::1", "10.0.1.0/24", "::1"])
    assert found == {"ip": ["10.0.0.0/23"], "ip6": ["::1", "2001:db8::/64"]}
    assert by_family([]) == {"ip": [], "ip6": []}


def test_names_are_no_addresses():
    assert not_addresses(["10.0.0.1", "2001:db8::/32", "db.example", "", 10]) == [
        "db.example",
        "",
        10,
    ]


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
def test_admits(networks, address, expected):
    assert admits(networks, address) is expected
