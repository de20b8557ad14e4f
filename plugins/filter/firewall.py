"""Work out who may reach which port of a host, from what the inventory and its hosts say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import collapse_addresses, ip_address, ip_interface, ip_network
from typing import Any

# Networks inside one machine: other machines have the same, and packets from them stay there.
_INSIDE = ("lo", "docker", "br-", "veth", "virbr", "podman", "cni", "lxcbr", "lxdbr", "flannel")


def firewall_services(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    name: str,
    words: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the rules of the host `name`: what its tiers are asked for, and by whom.

    A rule is `{port, protocol, sources, comment}`; no sources are all. Words: `https`,
    `web_sources`, `database_port`, `cache_port`, `queue_port`. Database, cache and queue are open
    to hosts of group app other than this one, and only where they listen on the network.
    """
    rules = []
    if name in groups.get("edge", []):
        web = [("80", "tcp", "web")]
        if words["https"]:
            web += [("443", "tcp", "web, HTTPS"), ("443", "udp", "web, HTTP/3")]
        sources = list(words["web_sources"])
        rules += [_rule(port, protocol, sources, comment) for port, protocol, comment in web]
    for tier, address in _listening(hostvars, groups, name):
        sources = [
            source
            for peer in _clients(groups, name)
            for source in _seen(hostvars[peer], hostvars[name], address)
        ]
        if sources:
            rules.append(_rule(str(words[f"{tier}_port"]), "tcp", sources, tier))
    return rules


def firewall_strangers(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, Sequence[str]],
    name: str,
) -> list[str]:
    """Return hosts that must reach a tier of the host `name`, and whose addresses are unknown."""
    needed = [address for _, address in _listening(hostvars, groups, name)]
    return [
        peer
        for peer in _clients(groups, name)
        if any(not _seen(hostvars[peer], hostvars[name], address) for address in needed)
    ]


def by_family(sources: Iterable[str]) -> dict[str, list[str]]:
    """Return addresses and networks as nftables wants them: IPv4 and IPv6 apart, no overlap."""
    networks = [ip_network(source, strict=False) for source in sources]
    return {
        key: [
            str(network.network_address) if network.num_addresses == 1 else str(network)
            for network in collapse_addresses(n for n in networks if n.version == version)
        ]
        for key, version in (("ip", 4), ("ip6", 6))
    }


def not_addresses(sources: Iterable[Any]) -> list[Any]:
    """Return what is no IP address or network, such as a name."""
    return [source for source in sources if not _is_network(source)]


def admits(sources: Sequence[str], address: str) -> bool:
    """Say whether an address is among addresses and networks. No sources are all."""
    place = ip_address(address.split("%")[0])
    mapped = getattr(place, "ipv4_mapped", None)
    networks = [ip_network(source, strict=False) for source in sources]
    return not networks or any((mapped or place) in network for network in networks)


def _rule(port: str, protocol: str, sources: list[str], comment: str) -> dict[str, Any]:
    return {"port": port, "protocol": protocol, "sources": sources, "comment": comment}


def _listening(
    hostvars: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], name: str
) -> list[tuple[str, str]]:
    """Return the tiers of a host that listen on the network, each with its address."""
    known = hostvars[name]
    tiers = [tier for tier in ("cache", "queue") if name in groups.get(tier, [])]
    tiers = list(known.get("redis_instances") or tiers) if tiers else []
    found = [(tier, known.get("redis_bind_address")) for tier in tiers]
    if name in groups.get("database", []):
        found.insert(0, ("database", known.get("mysql_bind_address")))
    return [(tier, address) for tier, address in found if address]


def _clients(groups: Mapping[str, Sequence[str]], name: str) -> list[str]:
    return [peer for peer in groups.get("app", []) if peer != name]


def _seen(peer: Mapping[str, Any], target: Mapping[str, Any], at: str) -> list[str]:
    """Return the addresses that `target`, listening `at` one of its own, sees `peer` come from.

    What peer's `firewall_addresses` says; else its addresses in the network of that address; else,
    since there are routers between the two, all it has of the same family.
    """
    if peer.get("firewall_addresses"):
        return list(peer["firewall_addresses"])
    here = ip_address(at)
    own = [place.ip for place in _places(peer) if place.version == here.version]
    networks = [place.network for place in _places(target) if place.ip == here]
    near = [address for address in own if any(address in network for network in networks)]
    if own and not near and (outside := _literal(peer.get("ansible_host"))):
        own += [outside] if outside.version == here.version else []
    return sorted({str(address) for address in near or own})


def _places(known: Mapping[str, Any]) -> list[Any]:
    """Return the addresses of a host that others may see, each with its network."""
    facts = known.get("ansible_facts") or {}
    places = []
    for interface in facts.get("interfaces", []):
        if interface.startswith(_INSIDE):
            continue
        details = facts.get(interface.replace("-", "_").replace(":", "_")) or {}
        found = [details.get("ipv4") or {}, *details.get("ipv4_secondaries", [])]
        found += [item for item in details.get("ipv6", []) if item.get("scope") != "link"]
        places += [
            ip_interface(f"{item['address']}/{item.get('prefix') or item.get('netmask')}")
            for item in found
            if item.get("address")
        ]
    return [place for place in places if not place.is_loopback]


def _literal(host: Any) -> Any:
    """Return the address that a host is reached at, unless that is a name or this machine."""
    if not host or not _is_network(host):
        return None
    address = ip_address(str(host))
    return None if address.is_loopback else address


def _is_network(source: Any) -> bool:
    try:
        ip_network(str(source), strict=False)
    except ValueError:
        return False
    return True


class FilterModule:
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {
            "firewall_services": firewall_services,
            "firewall_strangers": firewall_strangers,
            "by_family": by_family,
            "not_addresses": not_addresses,
            "admits": admits,
        }
