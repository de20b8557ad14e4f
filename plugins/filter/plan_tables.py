"""Print a plan as two tables."""

from __future__ import annotations

from typing import Any

Site = dict[str, dict[str, Any]]

# Each row: its label, the variable that sets it, and its tier.
TIMEOUTS = (
    ("request", "request_timeout", "app"),
    ("lock wait", "mysql_innodb_lock_wait_timeout", "database"),
    ("statement", "mysql_statement_timeout", "database"),
    ("Gunicorn worker", "gunicorn_timeout", "app"),
    ("graceful stop of a worker", "gunicorn_graceful_timeout", "app"),
    ("stop of the app", "gunicorn_stop_timeout", "app"),
    ("response to nginx", "nginx_proxy_read_timeout", "edge"),
    ("request sent by nginx", "nginx_proxy_send_timeout", "edge"),
    ("connection of nginx", "nginx_proxy_connect_timeout", "edge"),
    ("login to MySQL", "mysql_connect_timeout", "database"),
    ("MySQL reading from a client", "mysql_net_read_timeout", "database"),
    ("MySQL writing to a client", "mysql_net_write_timeout", "database"),
    ("age of a pooled connection", "app_database_pool_recycle", "app"),
    ("idle connection", "mysql_wait_timeout", "database"),
    ("idle interactive connection", "mysql_interactive_timeout", "database"),
)
SIZES = (
    ("CPUs", "host_cpus", ""),
    ("memory, MiB", "host_memory", ""),
    ("swap, MiB", "base_swap_size", ""),
    ("release strategy", "release_strategy", "app"),
    ("Gunicorn workers", "gunicorn_workers", "app"),
    ("memory of a worker or process, MiB", "gunicorn_worker_memory", "app"),
    ("memory limit of the app, MiB", "gunicorn_memory_limit", "app"),
    ("memory limit of a worker, MiB", "gunicorn_worker_memory_limit", "app"),
    ("threads of a worker", "gunicorn_threads", "app"),
    ("requests of a gevent worker", "gunicorn_worker_connections", "app"),
    ("concurrent requests per client", "nginx_limit_connections", "edge"),
    ("streams per client", "nginx_limit_streams", "edge"),
    ("connections per worker or process", "app_database_pool_size", "app"),
    ("MySQL connections", "mysql_max_connections", "database"),
    ("MySQL buffer pool, MiB", "mysql_innodb_buffer_pool_size", "database"),
    ("performance schema", "mysql_performance_schema", "database"),
    ("Redis cache, MiB", "redis_cache_maxmemory", "cache"),
    ("Redis queue, MiB", "redis_queue_maxmemory", "queue"),
)
Row = list[str]


def plan_tables(site: Site) -> str:
    """Return the tables of timeouts and of memory, with one column per host."""
    timeouts = [_setting(site, *row) for row in TIMEOUTS]
    budget = [_setting(site, *row) for row in SIZES]
    owners = [inputs.get("server", {}).get("app", "") for inputs in site.values()]
    if any(owners):
        budget.append(["MySQL is set up by the inventory of", "", *owners])
    return (
        f"{_table(['Timeouts, seconds', 'variable', *site], timeouts)}\n\n"
        f"{_table(['Budget', 'variable', *site], [*budget, [], *_memory(site)])}"
        f"{''.join(_streams(site))}"
    )


def _streams(site: Site) -> list[str]:
    """Return the notes on hosts where streams may occupy all workers."""
    notes = {}
    for inputs in site.values():
        if inputs["worker_class"] != "gevent" and "app" in inputs["tiers"] and inputs["streams"]:
            slots = inputs["plan"]["gunicorn_workers"] * inputs["plan"]["gunicorn_threads"]
            paths = " and ".join(inputs["streams"])
            notes[f"\n\nNote: {slots} visitors of {paths} hold all threads, and others wait. "] = 0
    return [f"{note}For long streams: gunicorn_worker_class: gevent" for note in notes]


def _setting(site: Site, text: str, name: str, tier: str) -> Row:
    cells = []
    for inputs in site.values():
        known = inputs["plan"] | {f"host_{key}": inputs[key] for key in ("memory", "cpus")}
        known |= inputs.get("server", {})
        cells.append(str(known[name]).lower() if not tier or tier in inputs["tiers"] else "")
    return [text, name, *cells]


def _memory(site: Site) -> list[Row]:
    """Return the rows of memory: each service, the sum and the rest."""
    parts = {part: None for inputs in site.values() for part in inputs["parts"]}
    sums = [sum(inputs["parts"].values()) for inputs in site.values()]
    left = [inputs["memory"] - used for inputs, used in zip(site.values(), sums, strict=True)]
    rows = [
        [f"{part} may hold, MiB", "", *(str(i["parts"].get(part, "")) for i in site.values())]
        for part in parts
    ]
    rows.append(["all of it, MiB", "", *map(str, sums)])
    rows.append(["left for page cache and deploys, MiB", "", *map(str, left)])
    return rows


def _table(header: Row, rows: list[Row]) -> str:
    """Align words to the left and numbers to the right. An empty row becomes an empty line."""
    widths = [max(map(len, column)) for column in zip(header, *filter(None, rows), strict=True)]
    lines = []
    for row in [header, *rows]:
        cells = zip(row, widths, strict=False)
        aligned = [f"{c:>{w}}" if n > 1 else f"{c:<{w}}" for n, (c, w) in enumerate(cells)]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"plan_tables": plan_tables}
