"""Addresses and networks for firewall rules and nginx."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, collapse_addresses, ip_network
from typing import Any


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
    """Return the IPv6 addresses in nginx syntax, without networks."""
    return [str(IPv6Address(text)) for text in texts if ":" in text and "/" not in text]


def not_networks(texts: Iterable[Any]) -> list[Any]:
    """Return the values that are neither an address nor a network."""
    return [text for text in texts if not _is_network(text)]


def network_rule(server: Sequence[Any]) -> str:
    """Return the nftables match for a server `(host, port)`; a host name matches any address."""
    host, port = server
    if host == "localhost":
        return f'oifname "lo" tcp dport {int(port)}'
    if not _is_network(host):
        return f"tcp dport {int(port)}"
    family = "ip" if ip_network(host).version == 4 else "ip6"
    return f"{family} daddr {host} tcp dport {int(port)}"


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
            "ipv6_addresses": ipv6_addresses,
            "networks": networks,
            "not_networks": not_networks,
            "network_rule": network_rule,
        }
