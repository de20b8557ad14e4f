"""Firewall rules of a host's tiers: ports and allowed source addresses."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from monitoring import monitoring_services

Hostvars = Mapping[str, Mapping[str, Any]]
Groups = Mapping[str, Sequence[str]]


def firewall_services(
    hostvars: Hostvars, groups: Groups, name: str, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the rules of the host `name`, each `{port, protocol, sources, comment}`.

    Empty sources allow all addresses. Settings: `https`, `web_sources`, `database_port`,
    `cache_port`, `queue_port`. Database, cache and queue are open to the `firewall_addresses` of
    the other hosts of group app, and only if they listen on the network; exporters to Prometheus.
    """
    rules = []
    if name in groups.get("edge", []):
        web = [("80", "tcp", "web")]
        if settings["https"]:
            web += [("443", "tcp", "web, HTTPS"), ("443", "udp", "web, HTTP/3")]
        rules += [_rule(*port, list(settings["web_sources"])) for port in web]
    for tier, address in _listening(hostvars, groups, name):
        sources = [
            source
            for client in _clients(groups, name)
            for source in _addresses(hostvars[client], address)
        ]
        if sources:
            rules.append(_rule(str(settings[f"{tier}_port"]), "tcp", tier, sources))
    return rules + monitoring_services(hostvars, groups, name)


def hosts_without_address(hostvars: Hostvars, groups: Groups, name: str) -> list[str]:
    """Return the app hosts that lack an address of the IP version that a tier of `name` uses."""
    listening = list(_listening(hostvars, groups, name))
    return [
        client
        for client in _clients(groups, name)
        if not all(_addresses(hostvars[client], address) for _, address in listening)
    ]


def contains_address(sources: Sequence[str], address: str) -> bool:
    """Return whether an address is in one of the networks. An empty list matches every address."""
    client = ip_address(address.split("%")[0])
    client = getattr(client, "ipv4_mapped", None) or client
    return not sources or any(client in ip_network(source, strict=False) for source in sources)


def _rule(port: str, protocol: str, comment: str, sources: list[str]) -> dict[str, Any]:
    return {"port": port, "protocol": protocol, "sources": sources, "comment": comment}


def _listening(hostvars: Hostvars, groups: Groups, name: str) -> Iterator[tuple[str, str]]:
    """Yield each tier of a host that listens on the network, with its address."""
    settings = hostvars[name]
    if name in groups.get("database", []) and settings.get("mysql_bind_address"):
        yield "database", settings["mysql_bind_address"]
    redis = [tier for tier in ("cache", "queue") if name in groups.get(tier, [])]
    if redis and settings.get("redis_bind_address"):
        for tier in settings.get("redis_instances") or redis:
            yield tier, settings["redis_bind_address"]


def _clients(groups: Groups, name: str) -> list[str]:
    return [host for host in groups.get("app", []) if host != name]


def _addresses(client: Mapping[str, Any], server: str) -> list[str]:
    """Return a client's addresses with the IP version of the server's address."""
    addresses = client.get("firewall_addresses") or []
    return [address for address in addresses if (":" in address) == (":" in server)]


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "firewall_services": firewall_services,
            "hosts_without_address": hosts_without_address,
            "contains_address": contains_address,
        }
