"""Collect the inputs of the plan: memory, CPUs, tiers and settings of each host."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from monitoring import monitoring_memory

Site = dict[str, dict[str, Any]]
Check = dict[str, Any]

# Variables that only the plan reads. The argument specs of role app describe them.
INPUTS = ("request_timeout", "host_memory", "host_cpus", "gunicorn_worker_memory")
TIERS = ("edge", "app", "database", "cache", "queue")
# Settings of a shared database server that determine its memory.
SERVED = ("mysql_innodb_buffer_pool_size", "mysql_performance_schema")
# Common names for groups, and the tier that each stands for.
SERVERS = {"nginx": "edge", "gunicorn": "app", "mysql": "database", "mariadb": "database"}
SERVERS |= {"db": "database", "redis": "cache"}
# A release starts beside the previous one (switch) or replaces it (restart).
STRATEGIES = ("switch", "restart")
# Settings that the inventory may override: minimum, maximum, usual value, unit.
NUMBERS: dict[str, tuple[int, int, int, str]] = {
    "request_timeout": (5, 600, 30, "seconds"),
    "host_memory": (256, 4_194_304, 2048, "MiB"),
    "host_cpus": (1, 1024, 2, "CPUs"),
    "mysql_innodb_lock_wait_timeout": (1, 600, 15, "seconds"),
    "mysql_statement_timeout": (1, 600, 22, "seconds"),
    "mysql_connect_timeout": (2, 60, 5, "seconds"),
    "mysql_net_read_timeout": (1, 3600, 30, "seconds"),
    "mysql_net_write_timeout": (1, 3600, 30, "seconds"),
    "mysql_wait_timeout": (1, 31_536_000, 3600, "seconds"),
    "mysql_interactive_timeout": (1, 31_536_000, 3600, "seconds"),
    "app_database_pool_recycle": (1, 86_400, 1800, "seconds"),
    "gunicorn_timeout": (1, 3600, 30, "seconds"),
    "gunicorn_graceful_timeout": (1, 3600, 30, "seconds"),
    "gunicorn_stop_timeout": (1, 7200, 40, "seconds"),
    "nginx_proxy_connect_timeout": (1, 75, 5, "seconds"),
    "nginx_proxy_send_timeout": (1, 3600, 30, "seconds"),
    "nginx_proxy_read_timeout": (1, 3600, 35, "seconds"),
    "gunicorn_worker_memory": (16, 65_536, 80, "MiB"),
    "gunicorn_workers": (1, 256, 2, "processes"),
    "gunicorn_threads": (1, 256, 4, "threads"),
    "gunicorn_worker_connections": (1, 100_000, 500, "requests"),
    "app_database_pool_size": (1, 1000, 4, "connections"),
    "mysql_max_connections": (10, 100_000, 100, "connections"),
    "mysql_innodb_buffer_pool_size": (32, 4_194_304, 128, "MiB"),
    "redis_cache_maxmemory": (4, 4_194_304, 64, "MiB"),
    "redis_queue_maxmemory": (4, 4_194_304, 64, "MiB"),
    "gunicorn_memory_limit": (0, 4_194_304, 512, "MiB"),
    "gunicorn_worker_memory_limit": (0, 4_194_304, 200, "MiB"),
    "base_swap_size": (0, 65_536, 1024, "MiB"),
    "nginx_limit_connections": (0, 100_000, 20, "requests"),
    "nginx_limit_streams": (0, 100_000, 20, "requests"),
}


def plan_inputs(
    groups: Mapping[str, list[str]], hostvars: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return for every host `{memory, cpus, tiers, provider, server, processes, given, invalid}`.

    `given` holds the settings of the inventory as numbers. `invalid` holds failed checks (for the
    filter `problems`) of settings that are not a number or are out of range. `memory` (MiB) and
    `cpus` come from `host_memory` and `host_cpus`, or from facts, or are None. `streams` are the
    paths of streamed responses. `server` has the `app` that owns the MySQL server and its settings,
    if that is another app. `processes` has the memory limit (MiB) of each background process on the
    host, 0 for no limit. `monitoring` is the memory of exporters and Prometheus. `backups` is true
    if the host makes backups.
    """
    first = (groups.get("app") or [""])[0]
    return {
        host: _inputs(
            [tier for tier in TIERS if host in groups.get(tier, [])],
            hostvars[host],
            host == hostvars[host].get("app_singleton_host", first),
        )
        | {
            "monitoring": monitoring_memory(
                hostvars[host], [tier for tier in TIERS if host in groups.get(tier, [])], host
            )
        }
        | {"backups": bool(hostvars[host].get("backup_repository"))}
        | {"groups": [group for group, hosts in groups.items() if host in hosts]}
        for host in groups["all"]
    }


def _inputs(tiers: list[str], variables: Mapping[str, Any], singletons: bool) -> dict[str, Any]:
    facts = variables.get("ansible_facts", {})
    given: dict[str, Any] = {}
    invalid: list[dict[str, Any]] = []
    for name, (low, high, usual, unit) in NUMBERS.items():
        if name not in variables:
            continue
        number = _whole(variables[name])
        if number is None or not low <= number <= high:
            reason = f"must be a whole number of {unit} from {low} to {high}"
            invalid.append(_failed(name, reason, usual) | {"value": variables[name]})
        else:
            given[name] = number
    if tiers and "app_name" not in variables:
        reason = "must be set: everything that the app owns on a host is named after it"
        invalid.append(_failed("app_name", reason, "shop"))
    if any("socket.io" in str(path) for path in variables.get("app_websocket_paths") or []):
        given.setdefault("gunicorn_workers", 1)  # browsers must poll the same worker
    if "mysql_performance_schema" in variables:
        given["mysql_performance_schema"] = bool(variables["mysql_performance_schema"])
    if variables.get("release_strategy") in STRATEGIES:
        given["release_strategy"] = variables["release_strategy"]
    server = _server_of_another(variables, facts) if "database" in tiers else {}
    given.update({name: server[name] for name in SERVED if name in server})
    if server:
        given.pop("mysql_max_connections", None)  # the server is sized for its apps
    return {
        "server": server,
        "memory": given.pop("host_memory", facts.get("memtotal_mb")),
        "cpus": given.pop("host_cpus", facts.get("processor_vcpus")),
        "tiers": tiers,
        "provider": _provider(variables, facts),
        "worker_class": variables.get("gunicorn_worker_class", "gthread"),
        "streams": variables.get("app_streaming_paths", [])
        + variables.get("app_websocket_paths", []),
        "app": variables.get("app_name"),
        "address": variables.get("ansible_host"),
        "port": variables.get("ansible_port", 22),
        "processes": _processes(variables, singletons) if "app" in tiers else [],
        "given": given,
        "invalid": invalid,
    }


def _server_of_another(variables: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other app that owns the database server, and its settings; empty if none."""
    server = (facts.get("ansible_local") or {}).get("flaskstack_mysql") or {}
    if server.get("app", variables.get("app_name")) == variables.get("app_name"):
        return {}
    return {"app": server["app"], **server.get("plan", {})}


def _whole(value: Any) -> int | None:
    """Return a whole number. Values from the command line (`-e request_timeout=30`) are strings."""
    text = str(value).strip()
    return int(text) if text.removeprefix("-").isdecimal() else None


def _provider(variables: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Return the provider that role mysql selects; for an unknown host, the larger one."""
    stable = (
        facts.get("distribution") == "Debian"
        and str(facts.get("distribution_version", ""))[:1].isdecimal()
    )
    usual = "mariadb" if stable and not variables.get("mysql_apt_source") else "mysql"
    given = variables.get("mysql_provider", usual)
    return given if given in ("mysql", "mariadb") else usual


def _processes(variables: Mapping[str, Any], singletons: bool) -> list[int]:
    """Return the memory limit of each process, scheduled ones included; 0 for no limit.

    The argument specs of the role reject a malformed list.
    """
    entries = variables.get("app_processes") or []
    if not isinstance(entries, list):
        return []
    limits: list[int] = []
    for entry in entries:
        if isinstance(entry, Mapping) and (singletons or not entry.get("singleton")):
            instances = _whole(entry.get("instances", 1)) or 0
            limits += [_whole(entry.get("memory_limit", 0)) or 0] * instances
    return limits


def input_checks(site: Site) -> list[Check]:
    """Return failed checks: settings missing or out of range, unknown sizes, wrong groups."""
    return [*_invalid_settings(site), *_unknown(site), *_misspelt(site), *_misplaced(site)]


def _invalid_settings(site: Site) -> list[Check]:
    """Return a failed check for each invalid setting, once, with its hosts."""
    hosts: dict[str, list[str]] = {}
    checks: dict[str, Check] = {}
    for host, inputs in site.items():
        for check in inputs["invalid"]:
            key = f"{check['variable']} {check.get('value')}"
            hosts.setdefault(key, []).append(host)
            checks[key] = check
    return [
        check | {"reason": f"{check['reason']} (on {', '.join(hosts[key])})"}
        for key, check in checks.items()
    ]


def _unknown(site: Site) -> list[Check]:
    checks = []
    for host, inputs in site.items():
        reason = f"{host} is not reachable, so its size must be in the inventory"
        if inputs["memory"] is None:
            checks.append(_failed("host_memory", reason, 2048))
        if inputs["cpus"] is None:
            checks.append(_failed("host_cpus", reason, 2))
    return checks


def _misspelt(site: Site) -> list[Check]:
    """Return failed checks of misspelt tier groups, which Ansible ignores silently."""
    existing = {group for inputs in site.values() for group in inputs.get("groups", [])}
    missing = [tier for tier in TIERS if tier not in existing]
    near = {
        group: tier
        for group in sorted(existing - {*TIERS, "all", "ungrouped"})
        for tier in get_close_matches(SERVERS.get(group, group).lower(), missing, 1, 0.75)
    }
    return [
        _failed(f"group {group}", f"is not a tier (the tiers are {', '.join(TIERS)})", None)
        | {"remedy": f"Name it {tier} in the inventory's hosts.yml"}
        for group, tier in near.items()
    ]


def _misplaced(site: Site) -> list[Check]:
    """Return failed checks: no app host, edge without app, two apps, or one host named twice."""
    found: list[tuple[str, str, str]] = []
    tiers = {tier: [host for host in site if tier in site[host]["tiers"]] for tier in TIERS}
    if not tiers["app"]:
        reason = f"no host is in it (the tiers are the groups {', '.join(TIERS)})"
        found.append(("group app", reason, "Name the app's hosts under it"))
    for host in set(tiers["edge"]) - set(tiers["app"]) if tiers["app"] else ():
        reason = f"{host} has nginx but no app, since it is not in group app"
        found.append(("group edge", reason, f"Add {host} to group app, or remove it from edge"))
    apps: dict[str, str] = {}
    places: dict[str, str] = {}
    for host, inputs in site.items():
        if inputs["tiers"] and inputs.get("app"):
            apps.setdefault(inputs["app"], host)
        if inputs["tiers"] and inputs.get("address"):
            place = f"{inputs['address']} port {inputs['port']}"
            other = places.setdefault(place, host)
            if other != host:
                reason = f"is at {place}, as {other} is: both would change it at the same time"
                found.append((f"host {host}", reason, f"Name {other} in all of its groups"))
    if len(apps) > 1:
        names = ", ".join(f"{app} on {host}" for app, host in apps.items())
        reason = f"differs ({names}), and an inventory is of one app"
        found.append(
            ("app_name", reason, "Give each a folder beside this one, with hosts of its own")
        )
    return [
        _failed(name, reason, None) | {"remedy": f"{remedy} in the inventory's hosts.yml"}
        for name, reason, remedy in found
    ]


def _failed(variable: str, reason: str, example: Any) -> Check:
    return {"ok": False, "variable": variable, "reason": reason, "example": example}


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"plan_inputs": plan_inputs, "input_checks": input_checks}
