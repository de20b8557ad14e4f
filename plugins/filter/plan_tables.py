"""Show a plan as two tables that a person can read."""

from __future__ import annotations

from typing import Any

Site = dict[str, dict[str, Any]]

# What a row says, the variable that changes it, and the tier that has it.
CLOCK = (
    ("a request may take", "request_timeout", "app"),
    ("a statement waits for a lock", "mysql_innodb_lock_wait_timeout", "database"),
    ("a statement runs", "mysql_statement_timeout", "database"),
    ("Gunicorn waits for a worker", "gunicorn_timeout", "app"),
    ("a worker finishes at a reload", "gunicorn_graceful_timeout", "app"),
    ("systemd waits at a stop", "gunicorn_stop_timeout", "app"),
    ("nginx waits for the answer", "nginx_proxy_read_timeout", "edge"),
    ("nginx waits while it sends", "nginx_proxy_send_timeout", "edge"),
    ("nginx waits for a connection", "nginx_proxy_connect_timeout", "edge"),
    ("MySQL waits for a login", "mysql_connect_timeout", "database"),
    ("MySQL waits for a client's data", "mysql_net_read_timeout", "database"),
    ("MySQL waits while it sends", "mysql_net_write_timeout", "database"),
    ("the pool renews a connection", "app_database_pool_recycle", "app"),
    ("MySQL closes an idle connection", "mysql_wait_timeout", "database"),
    ("the same in an interactive shell", "mysql_interactive_timeout", "database"),
)
COUNTS = (
    ("Gunicorn's workers", "gunicorn_workers", "app"),
    ("threads of each worker", "gunicorn_threads", "app"),
    ("connections of each process", "app_database_pool_size", "app"),
    ("MySQL's connections", "mysql_max_connections", "database"),
)
# What each part of the memory is made of; a part that no variable changes has none.
MEMORY = (
    ("system", "", ""),
    ("nginx", "", ""),
    ("web workers", "gunicorn_workers", " × gunicorn_worker_memory"),
    ("background processes", "app_processes", " × gunicorn_worker_memory"),
    ("MySQL itself", "mysql_performance_schema", ""),
    ("MySQL's connections", "mysql_max_connections", ""),
    ("MySQL's buffer pool", "mysql_innodb_buffer_pool_size", ""),
    ("Redis cache", "redis_cache_maxmemory", ""),
    ("Redis queue", "redis_queue_maxmemory", " × 1.5"),
)
Row = list[str]


def plan_tables(site: Site) -> str:
    """Return the clock and the budget of the whole inventory, one column a host."""
    return (
        f"{_table('Clock, seconds', site, _clock(site))}\n\n{_table('Budget', site, _budget(site))}"
    )


def _clock(site: Site) -> list[Row]:
    return [_row(site, text, name, tier) for text, name, tier in CLOCK]


def _budget(site: Site) -> list[Row]:
    sums = {host: sum(inputs["parts"].values()) for host, inputs in site.items()}
    rows = [_row(site, text, name, tier) for text, name, tier in COUNTS]
    rows.append(["CPUs", "host_cpus", *(str(inputs["cpus"] or "?") for inputs in site.values())])
    rows.append([])
    for part, name, factor in MEMORY:
        rows.append(
            [
                f"{part}, MiB",
                f"{name}{factor}",
                *(_cell(inputs["parts"], part) for inputs in site.values()),
            ]
        )
    rows.append(["all of these, MiB", "", *(str(size) for size in sums.values())])
    rows.append(
        ["memory, MiB", "host_memory", *(str(inputs["memory"] or "?") for inputs in site.values())]
    )
    free = (str((inputs["memory"] or 0) - sums[host]) for host, inputs in site.items())
    rows.append(["left for page cache and deploys, MiB", "", *free])
    rows.append(
        [
            "swap, MiB",
            "base_swap_size",
            *(_cell(inputs["plan"], "base_swap_size") for inputs in site.values()),
        ]
    )
    return rows


def _row(site: Site, text: str, name: str, tier: str) -> Row:
    cells = (
        _cell(inputs["plan"], name) if tier in inputs["tiers"] else "" for inputs in site.values()
    )
    return [text, name, *cells]


def _cell(values: dict[str, Any], name: str) -> str:
    return str(values.get(name, ""))


def _table(title: str, site: Site, rows: list[Row]) -> str:
    """Align words to the left and numbers to the right; a row of nothing stays an empty line."""
    lines = [[title, "variable", *site], *rows]
    widths = [max(len(line[column]) for line in lines if line) for column in range(2 + len(site))]
    text = []
    for line in lines:
        words = [cell.ljust(width) for cell, width in zip(line[:2], widths, strict=False)]
        numbers = [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=False)]
        text.append("  ".join(words + numbers).rstrip())
    return "\n".join(text)


class FilterModule:
    """Offer the filter to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {"plan_tables": plan_tables}
