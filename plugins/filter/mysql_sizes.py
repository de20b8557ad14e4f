"""MySQL settings that depend on the apps that use the server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

RESERVED_CONNECTIONS = 10  # for administrators
LEAST_PACKET, MOST_PACKET = 64, 1024  # MiB; MySQL's default, and the maximum of both servers


def packet_size(upload: Any) -> int:
    """Return the MiB of a statement that stores `upload` MiB in hexadecimal: two digits a byte."""
    return min(max(LEAST_PACKET, 2 * int(upload) + 2), MOST_PACKET)


def shared_settings(server: Mapping[str, Any], apps: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that must suffice for all apps of a server.

    `server` has their minimum values. An app has `connections`, `pool_recycle` and `packet`. Facts
    that an older version wrote lack `packet`.
    """
    apps = list(apps)
    recycle = max(int(app["pool_recycle"]) for app in apps)
    wait = int(server.get("wait_timeout", 0))
    packets = [int(app.get("packet", LEAST_PACKET)) for app in apps]
    connections = sum(int(app["connections"]) for app in apps) + RESERVED_CONNECTIONS
    return {
        "max_connections": max(int(server.get("max_connections", 0)), connections),
        "wait_timeout": wait if wait > recycle else 2 * recycle,
        "max_allowed_packet": f"{max(packets)}M",
    }


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"packet_size": packet_size, "shared_settings": shared_settings}
