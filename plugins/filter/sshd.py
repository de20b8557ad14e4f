"""Read the effective settings of an OpenSSH server."""

from __future__ import annotations

from typing import Any


def sshd_settings(said: str) -> list[str]:
    """Return the settings that `sshd -T` prints, each as `keyword value`.

    Keywords are in lower case, as OpenSSH 10.0 prints them. OpenSSH 10.6 prints them as in the
    manual.
    """
    pairs = (line.partition(" ") for line in said.splitlines() if line)
    return [f"{keyword.lower()} {value}" for keyword, _, value in pairs]


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"sshd_settings": sshd_settings}
