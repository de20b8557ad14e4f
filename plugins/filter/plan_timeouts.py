"""Derive every timeout of a request's path from `request_timeout`."""

from __future__ import annotations

from typing import Any

Site = dict[str, dict[str, Any]]
Check = dict[str, Any]

REQUEST_TIMEOUT = 30
TIER = {"mysql": "database", "app": "app", "gunicorn": "app", "nginx": "edge"}
# The first timeout must be shorter than the second; otherwise the consequence occurs.
ORDER = (
    (
        "mysql_innodb_lock_wait_timeout",
        "mysql_statement_timeout",
        "a wait for a lock is cut off before MySQL names it",
    ),
    (
        "mysql_statement_timeout",
        "gunicorn_timeout",
        "Gunicorn kills the worker while the database still works",
    ),
    ("gunicorn_timeout", "nginx_proxy_read_timeout", "nginx gives up (504) before Gunicorn does"),
    (
        "gunicorn_graceful_timeout",
        "nginx_proxy_read_timeout",
        "nginx gives up (504) on a worker that still answers",
    ),
    (
        "gunicorn_graceful_timeout",
        "gunicorn_stop_timeout",
        "systemd kills workers that still finish a request",
    ),
    (
        "nginx_proxy_connect_timeout",
        "nginx_proxy_read_timeout",
        "nginx has no time left for the answer",
    ),
    (
        "app_database_pool_recycle",
        "mysql_wait_timeout",
        "the pool hands out connections that MySQL has closed",
    ),
    ("gunicorn_timeout", "mysql_wait_timeout", "MySQL hangs up in the middle of a slow request"),
)


def timeouts(request: int) -> dict[str, int]:
    """Return every timeout in seconds for a request that may take `request` seconds (5 or more).

    The innermost expires first, so that each outer layer has time to report it: lock, statement,
    Gunicorn's worker, nginx.
    """
    return {
        "mysql_innodb_lock_wait_timeout": request // 2,
        "mysql_statement_timeout": request * 3 // 4,
        "gunicorn_timeout": request,
        "gunicorn_graceful_timeout": request,
        "nginx_proxy_read_timeout": request + 5,
        "nginx_proxy_send_timeout": request,
        "nginx_proxy_connect_timeout": 5,
        # Workers need a moment to exit after the graceful timeout, before systemd kills them.
        "gunicorn_stop_timeout": request + 10,
        "mysql_connect_timeout": 5,
        "mysql_net_read_timeout": request,
        "mysql_net_write_timeout": request,
        # The pool drops a connection at half of the idle time after which MySQL closes it.
        "app_database_pool_recycle": 1800,
        "mysql_wait_timeout": 3600,
        "mysql_interactive_timeout": 3600,
    }


def plan_timeouts(site: Site) -> Site:
    """Add the timeouts to each host's `plan`. Values of the inventory override derived ones."""
    return {
        host: {**inputs, "plan": inputs.get("plan", {}) | _plan(inputs["given"])}
        for host, inputs in site.items()
    }


def _plan(given: dict[str, Any]) -> dict[str, int]:
    request = given.get("request_timeout", REQUEST_TIMEOUT)
    derived = {"request_timeout": request} | timeouts(request)
    return {name: given.get(name, value) for name, value in derived.items()}


def timeout_checks(site: Site) -> list[Check]:
    """Return failed checks (for the filter `problems`) of timeouts in the wrong order."""
    checks = []
    for inner, outer, consequence in ORDER:
        inners, outers = _values(site, inner), _values(site, outer)
        if inners and outers and max(inners) >= min(outers):
            checks.append(_disorder(site, inner, max(inners), outer, min(outers), consequence))
    limits, graces = _values(site, "gunicorn_timeout"), _values(site, "gunicorn_graceful_timeout")
    if limits and max(limits) > min(graces):
        reason = f"must be at least gunicorn_timeout ({max(limits)}), or a reload cuts requests off"
        checks.append(_failed("gunicorn_graceful_timeout", min(graces), reason, max(limits)))
    return checks


def _disorder(site: Site, inner: str, short: int, outer: str, long: int, consequence: str) -> Check:
    """Return a failed check of the timeout that the inventory sets, with the derived value."""
    usual = timeouts(next(iter(site.values()))["plan"]["request_timeout"])
    if any(inner in inputs["given"] for inputs in site.values()) and long > 1:
        example = usual[inner] if usual[inner] < long else max(1, long * 3 // 4)
        reason = f"must be shorter than {outer} ({long}), or {consequence}"
        return _failed(inner, short, reason, example)
    example = usual[outer] if usual[outer] > short else short + 5
    reason = f"must be longer than {inner} ({short}), or {consequence}"
    return _failed(outer, long, reason, example)


def _values(site: Site, name: str) -> list[int]:
    """Return the values of a setting on the hosts of its tier."""
    tier = TIER[name.split("_", 1)[0]]
    return [inputs["plan"][name] for inputs in site.values() if tier in inputs["tiers"]]


def _failed(variable: str, value: int, reason: str, example: int) -> Check:
    return {
        "ok": False,
        "variable": variable,
        "value": value,
        "reason": reason,
        "example": example,
    }


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"plan_timeouts": plan_timeouts, "timeout_checks": timeout_checks}
