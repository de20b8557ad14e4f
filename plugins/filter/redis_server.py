"""Ports, passwords and checks of role redis."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from networks import LOOPBACK, not_networks
from problems import check, none_of

Settings = Mapping[str, Any]
Check = dict[str, Any]

INSTANCES = ("cache", "queue")
# One ACL rule; rules about passwords or users are invalid.
RULE = re.compile(
    r"[+-]@?[a-z0-9_.|-]+|%?(R|W|RW)?~[^\s\"'\\]+|&[^\s\"'\\]+|resetkeys|resetchannels"
)


def redis_hashes(passwords: Iterable[str]) -> str:
    """Return the ACL rules that accept these passwords; empty ones and duplicates are ignored."""
    unique = dict.fromkeys(filter(None, passwords))
    return " ".join(f"#{sha256(password.encode()).hexdigest()}" for password in unique)


def redis_ports(settings: Settings) -> dict[str, int]:
    """Return the TCP ports of the instances, in addition to their sockets.

    All instances listen on `redis_bind_address`. If it is empty, an instance listens on loopback if
    its host is a loopback address.
    """
    return {
        name: int(settings[f"app_{name}_port"])
        for name in INSTANCES
        if name in settings["redis_instances"]
        and (settings["redis_bind_address"] or settings[f"app_{name}_host"] in LOOPBACK)
    }


def redis_facts(settings: Settings) -> dict[str, Any]:
    """Return the local facts about the app's ports, for other apps on the host."""
    ports = list(redis_ports(settings).values())
    address = settings["redis_bind_address"] or ("127.0.0.1" if ports else "")
    return {"app": settings["app_name"], "address": address, "ports": ports}


def redis_checks(settings: Settings, local: Mapping[str, Any], runs_app: bool) -> Iterator[Check]:
    """Return the checks of role redis on a host with these local facts."""
    instances, bind = settings["redis_instances"], settings["redis_bind_address"]
    reason = "must name cache, queue or both"
    yield check("redis_instances", instances, reason, example=[*INSTANCES])
    for name in INSTANCES:
        password = f"app_{name}_password"
        valid = name not in instances or len(settings.get(password) or "") >= 16
        reason = "must have 16 characters or more, since Redis does not slow down password guessing"
        yield check(password, valid, reason)
        size = f"redis_{name}_maxmemory"
        reason = "must be 4 MiB or more (0 would be no limit)"
        yield check(size, int(settings[size]) >= 4, reason, example=64)
        rules = f"redis_{name}_rules"
        invalid = [rule for rule in settings[rules] if not RULE.fullmatch(rule)]
        reason = "must have ACL rules about commands, keys or channels"
        yield none_of(rules, invalid, reason, example=["+keys", "resetkeys", "~shop:*"])
    one = not not_networks([bind]) and "/" not in bind and bind not in ("0.0.0.0", "::")
    reason = "must be one IP address of the host's private network, or empty for Unix sockets only"
    yield check("redis_bind_address", not bind or one, reason, example="10.0.0.5")
    yield from _port_checks(settings, local, bind if runs_app else "")


def _port_checks(settings: Settings, local: Mapping[str, Any], bind: str) -> Iterator[Check]:
    """Return the checks of hosts and ports; `bind` is the address that the host's app must use."""
    facts, ports = redis_facts(settings), redis_ports(settings)
    others = [value for key, value in local.items() if key.startswith("flaskstack_redis_")]
    others = [
        other
        for other in others
        if other["app"] != facts["app"] and other["address"] == facts["address"]
    ]
    owners = ", ".join(
        f"{one['app']} uses {' and '.join(map(str, one['ports']))}" for one in others
    )
    used = {port for other in others for port in other["ports"]}
    reason = "must be redis_bind_address, where the instances listen with TLS, or empty for the"
    for name in INSTANCES:
        host, port = f"app_{name}_host", f"app_{name}_port"
        reached = not bind or settings[host] not in LOOPBACK
        yield check(host, reached, f"{reason} Unix sockets", example=bind)
        free = ports.get(name) not in used
        taken = f"must not be used by another app on this host ({owners} at {facts['address']})"
        yield check(port, free, taken, example=max(used, default=0) + 1 + INSTANCES.index(name))
    differs = len({*ports.values()}) == len(ports)
    reason = f"must differ from app_cache_port, since both listen on {facts['address']}"
    example = int(settings["app_cache_port"]) + 1
    yield check("app_queue_port", differs, reason, example=example)


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "redis_checks": redis_checks,
            "redis_facts": redis_facts,
            "redis_hashes": redis_hashes,
            "redis_ports": redis_ports,
        }
