"""Checks of the sizes in a plan, for the filter `problems`."""

from __future__ import annotations

from math import ceil
from typing import Any

Site = dict[str, dict[str, Any]]
Check = dict[str, Any]

# For each setting: its part of the memory, and MiB per unit.
SETTINGS = {
    "gunicorn_workers": ("web workers", 80),
    "gunicorn_worker_memory": ("web workers", 1),
    "mysql_innodb_buffer_pool_size": ("MySQL's buffer pool", 1),
    "mysql_max_connections": ("MySQL's connections", 0.5),
    "redis_cache_maxmemory": ("Redis cache", 1),
    "redis_queue_maxmemory": ("Redis queue", 1.5),
}


def size_checks(site: Site) -> list[Check]:
    """Return all failed checks: pools, connections, memory and two releases."""
    return [*_pools(site), *_connections(site), *_memory(site), *_limits(site), *_releases(site)]


def _pools(site: Site) -> list[Check]:
    checks = []
    for host, inputs in _hosts(site, "app").items():
        pool, threads = inputs["plan"]["app_database_pool_size"], inputs["plan"]["gunicorn_threads"]
        if pool < threads and inputs["worker_class"] == "gthread":
            reason = f"must be at least gunicorn_threads ({threads} on {host}), or threads wait"
            checks.append(_failed("app_database_pool_size", pool, reason, example=threads))
    return checks


def _connections(site: Site) -> list[Check]:
    apps = _hosts(site, "app")
    pools = ", ".join(f"{host}: {_pool(inputs)}" for host, inputs in apps.items())
    checks = []
    for host, inputs in _hosts(site, "database").items():
        needed, allowed = inputs["connections_needed"], inputs["plan"]["mysql_max_connections"]
        if needed > allowed:
            reason = f"a deploy needs {needed} connections ({pools}; and 10 for administrators)"
            checks.append(_failed("mysql_max_connections", allowed, reason, example=needed))
        reserved, memory = inputs["parts"]["MySQL's connections"], _memory_of(inputs)
        if reserved > memory / 4:
            reason = (
                f"{allowed} connections ({pools}) may hold {reserved} MiB, "
                f"more than a quarter of the {memory} MiB of {host}"
            )
            checks.append(_too_many(apps, allowed, needed, reason))
    return checks


def _pool(inputs: dict[str, Any]) -> str:
    plan = inputs["plan"]
    processes = f"{plan['gunicorn_workers']} workers + {len(inputs['processes'])} processes"
    return f"2 releases × ({processes}) × app_database_pool_size {plan['app_database_pool_size']}"


def _too_many(apps: Site, allowed: int, needed: int, reason: str) -> Check:
    """Return a failed check of the pool or the limit in the inventory that is too large."""
    name = "app_database_pool_size"
    pools = [inputs for inputs in apps.values() if name in inputs["given"]]
    if pools:
        largest = max(pools, key=lambda inputs: inputs["given"][name])
        threads = largest["plan"]["gunicorn_threads"]
        return _failed(name, largest["given"][name], reason, example=threads)
    if needed < allowed:
        remedy = "Remove it: the plan sets what the pools need"
        return _failed("mysql_max_connections", allowed, reason, remedy=remedy)
    remedy = "Use a database host with more memory, or fewer gunicorn_workers"
    return _failed("mysql_max_connections", allowed, reason, remedy=remedy)


def _memory(site: Site) -> list[Check]:
    """Return failed checks of the total memory. Half of the swap counts, for unused pages."""
    checks = []
    for host, inputs in site.items():
        memory, swap = _memory_of(inputs), inputs["plan"]["base_swap_size"]
        over = sum(inputs["parts"].values()) - memory - swap // 2
        if over > 0:
            room = f"its {memory} MiB" + (f" and half of its {swap} MiB of swap" if swap else "")
            parts = ", ".join(f"{name} {size}" for name, size in inputs["parts"].items() if size)
            reason = f"{host} would hold {over} MiB more than {room} ({parts})"
            checks.append(_too_large(inputs, over, reason))
    return checks


def _too_large(inputs: dict[str, Any], over: int, reason: str) -> Check:
    """Return a failed check of the largest setting of the inventory, with a value that fits."""
    parts, given = inputs["parts"], inputs["given"]
    names = [name for name, (part, _cost) in SETTINGS.items() if name in given and part in parts]
    names = [name for name in names if name not in inputs.get("server", {})]
    if not names:
        remedy = f"Use a host with {over} MiB more, or move one of its groups to another host"
        return _failed("host_memory", _memory_of(inputs), reason, remedy=remedy)
    name = max(names, key=lambda name: parts[SETTINGS[name][0]])
    lower = given[name] - ceil(over / SETTINGS[name][1])
    return _failed(name, given[name], reason, example=max(1, lower))


def _limits(site: Site) -> list[Check]:
    """Return failed checks of memory limits below the planned memory of the app."""
    checks = []
    for host, inputs in _hosts(site, "app").items():
        web, others = (inputs["parts"][name] for name in ("web workers", "background processes"))
        limit = inputs["plan"]["gunicorn_memory_limit"]
        if 0 < limit < web + others:
            reason = f"web workers hold {web} MiB and background processes {others} on {host}"
            checks.append(_failed("gunicorn_memory_limit", limit, reason, example=web + others))
    return checks


def _releases(site: Site) -> list[Check]:
    """Return failed checks of the switch strategy on hosts without room for two releases."""
    checks = []
    for host, inputs in _hosts(site, "app").items():
        room, second = inputs["room"], inputs["parts"]["web workers"]
        # If not even one release fits, _memory reports it.
        if inputs["given"].get("release_strategy") == "switch" and 0 <= room < second:
            reason = (
                f"a second set of web workers holds {second} MiB, and {host} has {room} MiB "
                "for it, with half of its swap"
            )
            checks.append(_failed("release_strategy", "switch", reason, example="restart"))
    return checks


def _hosts(site: Site, tier: str) -> Site:
    return {host: inputs for host, inputs in site.items() if tier in inputs["tiers"]}


def _memory_of(inputs: dict[str, Any]) -> int:
    return inputs["memory"] or 1024


def _failed(variable: str, value: int | str, reason: str, **advice: Any) -> Check:
    return {"ok": False, "variable": variable, "value": value, "reason": reason, **advice}


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"size_checks": size_checks}
