"""Compare a version with version specifiers."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError
from packaging.specifiers import InvalidSpecifier, SpecifierSet


def satisfies(version: str, specifiers: str) -> bool:
    """Return whether a version matches specifiers, for example `>=3.11,<4`."""
    try:
        return SpecifierSet(specifiers).contains(version, prereleases=True)
    except InvalidSpecifier as error:
        raise AnsibleFilterError(f"requires-python of the app's pyproject.toml: {error}") from error


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"satisfies": satisfies}
