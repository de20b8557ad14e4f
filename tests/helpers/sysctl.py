"""Network settings of the kernel that exist per interface."""

from __future__ import annotations

from typing import Any

EXPECTED = {
    "ipv4": {"accept_redirects": 0, "send_redirects": 0, "accept_source_route": 0, "rp_filter": 1},
    "ipv6": {"accept_redirects": 0, "accept_source_route": 0},
}


def wrong(host: Any) -> list[str]:
    """Return the settings of interfaces that differ from `EXPECTED`, as `file:value`."""
    found = []
    for family, settings in EXPECTED.items():
        for name, value in settings.items():
            shown = host.check_output(f"grep -H . /proc/sys/net/{family}/conf/*/{name}")
            found += [line for line in shown.splitlines() if not line.endswith(f":{value}")]
    return found
