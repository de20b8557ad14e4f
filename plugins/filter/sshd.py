"""Read what an OpenSSH server says of itself."""

from __future__ import annotations

from typing import Any


def sshd_settings(said: str) -> list[str]:
    """Return the settings that `sshd -T` prints, each as `keyword value`.

    Keywords come back in small letters: OpenSSH 10.0 wrote them so, 10.6 writes them as the manual
    does.
    """
    pairs = (line.partition(" ") for line in said.splitlines() if line)
    return [f"{keyword.lower()} {value}" for keyword, _, value in pairs]


class FilterModule:
    """Offer the filter to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {"sshd_settings": sshd_settings}
