"""Select the roles of a host from the list in playbooks/vars/roles.yml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def in_groups(roles: Iterable[Mapping[str, Any]], group_names: Iterable[str]) -> list[str]:
    """Return the names of the roles that apply to a host in these groups."""
    groups = {"all", *group_names}
    return [role["name"] for role in roles if groups.intersection(role["groups"])]


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"in_groups": in_groups}
