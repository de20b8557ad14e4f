"""Firewall files: rules of the app and rules of the host."""

from __future__ import annotations

import re

import pytest

from helpers.templates import problems

FACTS = {
    "env": {"SSH_CONNECTION": "203.0.113.7 50000 10.0.0.9 22"},
    "access": {
        "sshd": ["port 22", "listenaddress [::]:2022"],
        "firewalls": [],
        "has_rules": False,
    },
}


@pytest.fixture
def rules(render):
    """Return a function that renders the app's rules as a list of lines."""

    def rules(**variables):
        text = render("firewall", "etc/flaskstack/firewall.d/app.nft.j2", **variables)
        inside = re.search(r"chain services \{\n(.*?)    \}\n\}\n\Z", text, re.DOTALL).group(1)
        return [line.strip() for line in inside.splitlines()]

    return rules


@pytest.fixture
def host(render):
    """Return a function that renders the rules of the host."""
    return lambda **variables: render(
        "firewall", "etc/flaskstack/firewall.nft.j2", **{"ansible_facts": FACTS} | variables
    )


def test_site_is_open_to_all_addresses(rules):
    assert rules() == [
        'tcp dport 80 accept comment "shop: web"',
        'tcp dport 443 accept comment "shop: web, HTTPS"',
        'udp dport 443 accept comment "shop: web, HTTP/3"',
    ]


def test_site_behind_a_load_balancer_is_open_to_it_only(rules):
    assert rules(app_https=False, firewall_web_sources=["10.0.0.100", "fd00::100"]) == [
        'ip saddr { 10.0.0.100/32 } tcp dport 80 accept comment "shop: web"',
        'ip6 saddr { fd00::100/128 } tcp dport 80 accept comment "shop: web"',
    ]


def test_additional_rules(rules):
    more = [
        {"port": "60000-60010", "protocol": "udp"},
        {"port": "9100", "sources": ["10.0.0.9"], "comment": "metrics"},
    ]
    assert rules(firewall_rules=more)[3:] == [
        'udp dport 60000-60010 accept comment "shop: firewall_rules"',
        'ip saddr { 10.0.0.9/32 } tcp dport 9100 accept comment "shop: metrics"',
    ]


def test_ssh_is_open_on_ports_of_sshd_and_of_the_connection(host):
    assert "tcp dport { 22, 2022, 2222 } goto ssh" in host(firewall_ssh_ports=[2222])


def test_ssh_sources_of_one_ip_version_block_the_other(host):
    text = host(firewall_ssh_sources=["203.0.113.0/24"])
    assert "ip saddr != { 203.0.113.0/24 } goto refused" in text
    assert "meta nfproto ipv6 goto refused" in text


def test_limits_can_be_disabled(host):
    text = host(firewall_ssh_rate=0, firewall_log_rate=0)
    assert "ssh_ip" not in text
    assert "log prefix" not in text


def test_only_the_flaskstack_table_is_replaced(host):
    statements = [line for line in host().splitlines() if re.match(r"[a-z]", line)]
    assert statements == [
        "table inet flaskstack",
        "delete table inet flaskstack",
        "table inet flaskstack {",
        'include "/etc/flaskstack/firewall.d/*.nft"',
    ]


def test_invalid_settings_are_rejected(evaluate):
    """See tests/plugins/test_host_checks.py for each check."""
    assert problems("firewall") == []
    (message,) = problems("firewall", firewall_ssh_burst=1)
    assert message.startswith("firewall_ssh_burst is 1: ")
    sources = {"ansible_facts": FACTS, "firewall_ssh_sources": ["192.0.2.1"]}
    (message,) = evaluate("firewall", "__firewall_host_problems", **sources)
    assert "example: firewall_ssh_sources: [192.0.2.1, 203.0.113.7]" in message
