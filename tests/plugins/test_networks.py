"""Addresses and networks in firewall rules."""

import pytest

from networks import egress_rules, networks, not_networks


def test_networks_are_sorted_by_version_without_overlaps():
    assert networks(["10.0.0.7", "10.0.0.0/8", "fd00:1::5/64", "192.0.2.1"]) == {
        "ipv4": ["10.0.0.0/8", "192.0.2.1/32"],
        "ipv6": ["fd00:1::/64"],
    }


def test_no_networks():
    assert networks([]) == {"ipv4": [], "ipv6": []}


@pytest.mark.parametrize("text", ["example.com", "10.0.0.0/33", "", "internet ", 5, None])
def test_invalid_network(text):
    assert not_networks([text, "10.0.0.0/8", "::1"]) == [text]


@pytest.mark.parametrize(
    ("server", "rule"),
    [
        (("10.0.0.7", 3306), "ip daddr 10.0.0.7 tcp dport 3306 accept"),
        (("fd00::7", "6379"), "ip6 daddr fd00::7 tcp dport 6379 accept"),
        (("db.example.com", 25060), "tcp dport 25060 accept"),
        (("localhost", 6379), 'oifname "lo" tcp dport 6379 accept'),
    ],
)
def test_egress_rule_of_a_server(server, rule):
    assert egress_rules([], [server, server, ("", 6380)])[0] == rule
