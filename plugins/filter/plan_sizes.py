"""Divide the memory of each host among its services. All memory is in MiB.

Each service has a fixed cost and a minimum size. Three quarters of the remaining memory are divided
by weight. The last quarter is for the page cache, peaks and the second release that runs during a
deploy. Small hosts use swap for that. If swap is not enough, a new release replaces the previous
one instead of starting beside it.
"""

from __future__ import annotations

from typing import Any

Site = dict[str, dict[str, Any]]

# Memory of each database provider: idle, for the performance schema, and per connection
# (measured: MySQL 9.7 on sid, MariaDB 11.8 on Debian 13).
SERVERS: dict[str, tuple[int, int, float]] = {"mysql": (190, 240, 1), "mariadb": (90, 110, 0.5)}
# Idle memory of the other services, an nginx worker, and a Python process with Flask or RQ.
REDIS, GUNICORN, NGINX, NGINX_WORKER, WORKER = 8, 24, 8, 8, 80
# A backup; a restore needs more for its private server.
RESTIC = 96
# Host memory that enables the performance schema, host memory below which swap is added, swap size.
PERFORMANCE_SCHEMA_FROM, SWAP_BELOW, SWAP = 3500, 1800, 1024
# Connections reserved for administrators, backups and migrations, and the minimum in total.
RESERVED_CONNECTIONS, LEAST_CONNECTIONS = 10, 30
MOST_WORKERS = 32
# Maximum concurrent requests of a gevent worker, and the range of the limit per client.
GEVENT_CONNECTIONS, LEAST_REQUESTS, MOST_REQUESTS = 500, 4, 100
# For each setting: tier, minimum, weight for free memory, and memory per unit. The queue needs more
# because the fork that rewrites its append-only file copies pages.
CLAIMS: dict[str, tuple[str, int, int, float]] = {
    "mysql_innodb_buffer_pool_size": ("database", 32, 4, 1),
    "redis_cache_maxmemory": ("cache", 16, 1, 1),
    "redis_queue_maxmemory": ("queue", 16, 1, 1.5),
    "gunicorn_workers": ("app", 1, 3, WORKER),
}


def plan_sizes(site: Site) -> Site:
    """Add the sizes to each host's `plan`.

    Also add `parts`, the memory limit of each service, and `connections_needed`, the sum of the
    pools of all hosts.
    """
    counted = {
        host: inputs | {"plan": inputs.get("plan", {}) | _counts(inputs)}
        for host, inputs in site.items()
    }
    needed = connections_needed(counted)
    return {host: _sized(inputs, needed) for host, inputs in counted.items()}


def connections_needed(site: Site) -> int:
    """Return the database connections of all app hosts while two releases run side by side."""
    pools = sum(
        (inputs["plan"]["gunicorn_workers"] + len(inputs["processes"]))
        * inputs["plan"]["app_database_pool_size"]
        for inputs in site.values()
        if "app" in inputs["tiers"]
    )
    return 2 * pools + RESERVED_CONNECTIONS


def _counts(inputs: dict[str, Any]) -> dict[str, int]:
    """Return the numbers of workers, threads and pooled connections that CPUs and memory allow."""
    given = inputs["given"]
    threads = given.get("gunicorn_threads", 2 if _memory(inputs) < 700 else 4)
    workers = 1 + int(_shares(inputs)["gunicorn_workers"] // _worker(inputs))
    return {
        "gunicorn_worker_memory": _worker(inputs),
        "gunicorn_workers": given.get("gunicorn_workers", min(workers, _most_workers(inputs))),
        "gunicorn_threads": threads,
        "gunicorn_worker_connections": given.get("gunicorn_worker_connections", GEVENT_CONNECTIONS),
        "app_database_pool_size": given.get("app_database_pool_size", _pool(inputs, threads)),
    }


def _pool(inputs: dict[str, Any], threads: int) -> int:
    """Return the size of a worker's connection pool.

    A thread uses one connection at a time. The requests of a gevent worker share one thread, so
    few of them use a connection at the same time.
    """
    return {"sync": 1, "gevent": 2 * threads}.get(inputs["worker_class"], threads)


def _limits(inputs: dict[str, Any]) -> dict[str, int]:
    """Return the maximum of concurrent requests and of streams per client.

    Together they are below the capacity of the workers, so one client cannot block others.
    """
    plan, gevent = inputs["plan"], inputs["worker_class"] == "gevent"
    each = {"sync": 1, "gevent": plan["gunicorn_worker_connections"]}
    slots = plan["gunicorn_workers"] * each.get(inputs["worker_class"], plan["gunicorn_threads"])
    limits = {
        "nginx_limit_connections": min(max(slots // 2, LEAST_REQUESTS), MOST_REQUESTS),
        "nginx_limit_streams": max(slots // (2 if gevent else 4), 1),
    }
    return {name: inputs["given"].get(name, limit) for name, limit in limits.items()}


def _sized(inputs: dict[str, Any], needed: int) -> dict[str, Any]:
    given = inputs["given"]
    least = inputs.get("server", {}).get("mysql_max_connections", LEAST_CONNECTIONS)
    connections = given.get("mysql_max_connections", max(needed, least))
    shares = _shares(inputs)
    plan = inputs["plan"] | {
        "mysql_max_connections": connections,
        "mysql_performance_schema": _performance_schema(inputs),
        "base_swap_size": _swap(inputs),
        **_limits(inputs),
    }
    for name in ("mysql_innodb_buffer_pool_size", "redis_cache_maxmemory", "redis_queue_maxmemory"):
        _tier, smallest, _weight, unit = CLAIMS[name]
        share = shares.get(name, 0) / unit
        if name == "mysql_innodb_buffer_pool_size":
            more = connections - given.get("mysql_max_connections", LEAST_CONNECTIONS)
            share = max(0, share - more * SERVERS[inputs["provider"]][2])
        plan[name] = given.get(name, _rounded(smallest + int(share)))
    parts = _parts(inputs, plan)
    plan |= _memory_limits(inputs, plan, parts)
    # A host that already needs its swap has none left for a second set of workers.
    fits = sum(parts.values()) <= _memory(inputs)
    fits = fits and room_beside(inputs, plan, parts) >= parts.get("web workers", 0)
    plan["release_strategy"] = given.get("release_strategy", "switch" if fits else "restart")
    return inputs | {
        "plan": plan,
        "parts": parts,
        "room": room_beside(inputs, plan, parts),
        "connections_needed": needed,
    }


def _memory_limits(
    inputs: dict[str, Any], plan: dict[str, Any], parts: dict[str, int]
) -> dict[str, int]:
    """Return the memory limit of the app, and the size at which a worker is replaced.

    The app may exceed its planned memory as long as the other services still fit.
    """
    own = parts.get("web workers", 0) + parts.get("background processes", 0)
    given, rest = inputs["given"], _memory(inputs) - (sum(parts.values()) - own)
    limit = given.get("gunicorn_memory_limit", max(rest, own))
    each = max(limit // plan["gunicorn_workers"], plan["gunicorn_worker_memory"] * 3 // 2)
    return {
        "gunicorn_memory_limit": limit,
        "gunicorn_worker_memory_limit": given.get("gunicorn_worker_memory_limit", limit and each),
    }


def room_beside(inputs: dict[str, Any], plan: dict[str, Any], parts: dict[str, int]) -> int:
    """Return the MiB left for a second set of web workers while the first is active.

    Half of the swap counts, because unused pages of processes move there.
    """
    return _memory(inputs) - sum(parts.values()) + plan["base_swap_size"] // 2


def _shares(inputs: dict[str, Any]) -> dict[str, float]:
    """Return the MiB that each setting gets beyond its smallest value.

    A setting from the inventory takes no share, because `parts` includes its cost. Workers are
    limited to the number that the CPUs can use. The rest of their share goes to other settings.
    """
    smallest = {name: inputs["given"].get(name, claim[1]) for name, claim in CLAIMS.items()}
    at_least = {
        "mysql_max_connections": inputs["given"].get("mysql_max_connections", LEAST_CONNECTIONS),
        "mysql_performance_schema": _performance_schema(inputs),
    }
    free = max(0, _memory(inputs) - sum(_parts(inputs, smallest | at_least).values()))
    weights = {
        name: weight
        for name, (tier, _smallest, weight, _unit) in CLAIMS.items()
        if tier in inputs["tiers"] and name not in inputs["given"]
    }
    workers = weights.pop("gunicorn_workers", 0)
    others = sum(weights.values())
    # A second worker comes before any other increase.
    second = _worker(inputs) if workers and free >= _worker(inputs) else 0
    free -= second
    handed_out = free * 3 / 4
    share = handed_out * workers / (workers + others or 1)
    if workers:
        # The CPUs limit the workers, and so does memory: a deploy needs them twice.
        rest = (free - handed_out if others else free / 2) + _swap(inputs) / 2
        again = rest - GUNICORN - 2 * _worker(inputs)
        share = min(share, max(0, again), (_most_workers(inputs) - 2) * _worker(inputs))
    shares = {name: (handed_out - share) * weight / others for name, weight in weights.items()}
    return shares | {"gunicorn_workers": second + share}


def _parts(inputs: dict[str, Any], plan: dict[str, Any]) -> dict[str, int]:
    """Return the memory that each service on the host may use with these settings."""
    tiers, cpus = inputs["tiers"], inputs["cpus"] or 1
    parts = {"system": min(64 + _memory(inputs) * 6 // 100, 1024)}
    if inputs.get("monitoring"):
        parts["monitoring"] = inputs["monitoring"]
    if inputs.get("backups"):
        parts["backups"] = RESTIC
    if "edge" in tiers:
        parts["nginx"] = NGINX + NGINX_WORKER * cpus
    if "app" in tiers:
        parts["web workers"] = GUNICORN + plan["gunicorn_workers"] * _worker(inputs)
        parts["background processes"] = sum(n or _worker(inputs) for n in inputs["processes"])
    if "database" in tiers:
        server, instruments, connection = SERVERS[inputs["provider"]]
        parts["MySQL itself"] = server + plan["mysql_performance_schema"] * instruments
        parts["MySQL's connections"] = int(plan["mysql_max_connections"] * connection)
        parts["MySQL's buffer pool"] = plan["mysql_innodb_buffer_pool_size"]
    for tier in ("cache", "queue"):
        if tier in tiers:
            name = f"redis_{tier}_maxmemory"
            parts[f"Redis {tier}"] = REDIS + int(plan[name] * CLAIMS[name][3])
    return parts


def _rounded(size: int) -> int:
    """Round down to whole steps of 16 MiB, 128 MiB (from 128 MiB) or 1 GiB (from 8 GiB).

    InnoDB would round up to its chunk size.
    """
    step = 16 if size < 128 else 128 if size < 8192 else 1024
    return size // step * step


def _memory(inputs: dict[str, Any]) -> int:
    return inputs["memory"] or 1024


def _swap(inputs: dict[str, Any]) -> int:
    return inputs["given"].get("base_swap_size", SWAP if _memory(inputs) < SWAP_BELOW else 0)


def _performance_schema(inputs: dict[str, Any]) -> bool:
    on = _memory(inputs) >= PERFORMANCE_SCHEMA_FROM
    return inputs["given"].get("mysql_performance_schema", on)


def _worker(inputs: dict[str, Any]) -> int:
    return inputs["given"].get("gunicorn_worker_memory", WORKER)


def _most_workers(inputs: dict[str, Any]) -> int:
    return min(2 * (inputs["cpus"] or 1) + 1, MOST_WORKERS)


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"plan_sizes": plan_sizes}
