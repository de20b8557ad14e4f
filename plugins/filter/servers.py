"""Find the hosts of the inventory that an address belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def hosts_at(
    hostvars: Mapping[str, Mapping[str, Any]],
    names: list[str],
    addresses: list[str],
    *variables: str,
) -> list[str]:
    """Return those of the hosts `names` that are reached at one of `addresses`.

    That is the host's own name, its ansible_host, or what one of `variables` says of it.
    """
    return [
        name
        for name in names
        if {*filter(None, addresses)} & _own(name, hostvars[name], ("ansible_host", *variables))
    ]


def _own(name: str, known: Mapping[str, Any], variables: tuple[str, ...]) -> set[str]:
    values = [known[variable] for variable in variables if variable in known]
    return {name}.union(*(value if isinstance(value, list) else [value] for value in values))


class FilterModule:
    """Offer the filter to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {"hosts_at": hosts_at}
