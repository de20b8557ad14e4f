"""Find the servers of the app's database and Redis instances in the inventory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from networks import LOOPBACK

GROUPS = {"mysql": ("database",), "redis": ("cache", "queue")}


def server_hosts(
    hostvars: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, list[str]],
    role: str,
    *addresses: str,
) -> list[str]:
    """Return the hosts of the groups of role `mysql` or `redis` that have one of the addresses.

    A host's addresses are its name, ansible_host, and the role's bind_address and tls_names.
    """
    searched = {*filter(None, addresses)} - LOOPBACK
    if not searched:
        return []
    names = dict.fromkeys(name for group in GROUPS[role] for name in groups.get(group, []))
    return [name for name in names if searched & _addresses(name, hostvars[name], role)]


def _addresses(name: str, variables: Mapping[str, Any], role: str) -> set[str]:
    found = [variables.get("ansible_host"), variables.get(f"{role}_bind_address")]
    return {name, *filter(None, found), *variables.get(f"{role}_tls_names", [])}


def certificates_to_copy(files: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """Return `[host, src, dest]` of the certificates that the app's hosts need.

    `files` are `{hosts, src, dest, used}`. If a variable sets another certificate, `used` differs
    from `dest` and the file is not needed.
    """
    return [
        [host, file["src"], file["dest"]]
        for file in files
        if file["used"] == file["dest"]
        for host in file["hosts"]
    ]


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"server_hosts": server_hosts, "certificates_to_copy": certificates_to_copy}
