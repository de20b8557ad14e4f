"""Addresses and networks for firewall rules and nginx."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, collapse_addresses, ip_network
from typing import Any

# Values of `app_network` that are neither addresses nor networks.
KEYWORDS = {"internet", "any", "localhost"}
# Metadata services of clouds, which hand out credentials: AWS, Azure, DigitalOcean, Google and
# Oracle, also through NAT64.
METADATA = (
    *("169.254.0.0/16", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fe80::/10"),
    *("fd00:ec2::254", "fd20:ce::254", "64:ff9b::a9fe:0/112"),
)
# Addresses that are not public.
PRIVATE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16"),
    *("169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15"),
    *("224.0.0.0/3", "::/127", "64:ff9b::a00:0/104", "64:ff9b::7f00:0/104"),
    *("64:ff9b::a9fe:0/112", "64:ff9b::ac10:0/108", "64:ff9b::c0a8:0/112", "64:ff9b:1::/48"),
    *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
)
LOOPBACK = {"127.0.0.1", "::1", "localhost"}  # servers there are reached over TCP without TLS


def networks(texts: Iterable[str]) -> dict[str, list[str]]:
    """Return the networks of each IP version in nftables syntax, without overlaps."""
    parsed = [ip_network(text, strict=False) for text in texts]
    return {
        f"ipv{version}": [
            str(network)
            for network in collapse_addresses(item for item in parsed if item.version == version)
        ]
        for version in (4, 6)
    }


def ipv6_addresses(texts: Iterable[str]) -> list[str]:
    """Return the IPv6 addresses in nginx syntax. Networks are left out."""
    return [str(IPv6Address(text)) for text in texts if ":" in text and "/" not in text]


def not_networks(texts: Iterable[Any]) -> list[Any]:
    """Return the values that are neither an address nor a network."""
    return [text for text in texts if not _is_network(text)]


def egress_rules(app_network: Iterable[str], servers: Iterable[Sequence[Any]]) -> list[str]:
    """Return the egress rules of an app in nftables syntax. The chain rejects all other packets.

    `servers` has the app's database and Redis servers as `(host, port)`. An empty host means a
    socket.
    """
    own = list(dict.fromkeys((host, int(port)) for host, port in servers if host))
    rules = [f"{_server(host)}tcp dport {port} accept" for host, port in own]
    allowed = set(app_network)
    if allowed or not_networks(host for host, _ in own):  # DNS, since names must be resolved
        rules.append("meta l4proto { tcp, udp } th dport 53 accept")
    rules += _to(sorted(allowed - KEYWORDS), "accept")
    if "localhost" in allowed:
        rules.append('oifname "lo" accept')
    if "any" in allowed:
        return [*rules, *_to(METADATA, "goto refused"), "accept"]
    if "internet" in allowed:
        return [*rules, *_to(PRIVATE, "goto refused"), 'oifname != "lo" accept']
    return rules


def _server(host: str) -> str:
    """Return the nftables match for a host; a name matches any address."""
    if host == "localhost":
        return 'oifname "lo" '
    if not _is_network(host):
        return ""
    return f"{'ip' if ip_network(host).version == 4 else 'ip6'} daddr {host} "


def _to(addresses: Iterable[str], verdict: str) -> list[str]:
    found = networks(addresses)
    return [
        f"{family} daddr {{ {', '.join(found[version])} }} {verdict}"
        for family, version in (("ip", "ipv4"), ("ip6", "ipv6"))
        if found[version]
    ]


def _is_network(text: Any) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return isinstance(text, str)


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, object]:
        """Return the filters by name."""
        return {
            "egress_rules": egress_rules,
            "ipv6_addresses": ipv6_addresses,
            "networks": networks,
            "not_networks": not_networks,
        }
