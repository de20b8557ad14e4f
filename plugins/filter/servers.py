"""Find inventory hosts by address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def hosts_at(
    hostvars: Mapping[str, Mapping[str, Any]],
    names: list[str],
    addresses: list[str],
    *variables: str,
) -> list[str]:
    """Return the hosts of `names` that have one of `addresses`.

    A host's addresses are its name, its ansible_host and the values of `variables`.
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
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"hosts_at": hosts_at}
