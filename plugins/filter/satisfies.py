"""Compare a version with what a project says that it runs on."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleFilterError
from packaging.specifiers import InvalidSpecifier, SpecifierSet


def satisfies(version: str, specifiers: str) -> bool:
    """Say whether a version is one of those meant by, for example, `>=3.11,<4`."""
    try:
        return SpecifierSet(specifiers).contains(version, prereleases=True)
    except InvalidSpecifier as error:
        raise AnsibleFilterError(f"requires-python of the app's pyproject.toml: {error}") from error


class FilterModule:
    """Offer the filter to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {"satisfies": satisfies}
