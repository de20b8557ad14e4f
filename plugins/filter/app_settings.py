"""Environment and health check of an app."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def app_environment(
    variables: Mapping[str, Any], secret_keys: Iterable[str], *own: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the environment of an app: `variables`, session keys, and `own`, which override both.

    Variables without a value are omitted, except for APP_PREFIX. The first of `secret_keys` signs
    sessions. Sessions that the other keys signed are also accepted.
    """
    key, *others = dict.fromkeys(filter(None, secret_keys))
    found = {
        name: value for name, value in variables.items() if value != "" or name == "APP_PREFIX"
    }
    found["SECRET_KEY"] = key
    if others:
        found["SECRET_KEY_FALLBACKS"] = json.dumps(others)
    for each in own:
        found |= each
    return found


def database_variables(url: str, database: Mapping[str, Any]) -> dict[str, Any]:
    """Return the app's variables for its database; with a host, also one for each URL part."""
    if not url:
        return {}
    names = ("host", "port", "user", "password", "name") if database["host"] else ()
    return {"DATABASE_URL": url} | {f"DB_{name.upper()}": database[name] for name in names}


def health_request(path: str, domains: Iterable[str], prefix: str) -> dict[str, Any]:
    """Return the health check: a request with the headers that nginx sends."""
    domain = next(iter(domains), "localhost").replace("*.", "www.", 1)
    return {
        "path": path,
        "status": 200,
        "body": "",
        "headers": {
            "Host": domain,
            "X-Forwarded-For": "127.0.0.1",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": domain,
            "X-Forwarded-Port": "443",
            "X-Forwarded-Prefix": prefix,
        },
    }


def start_timeout(health_timeout: int | str) -> int:
    """Return the seconds for the start of an instance, longer than its health check may take."""
    return max(int(health_timeout) + 30, 90)


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "app_environment": app_environment,
            "database_variables": database_variables,
            "health_request": health_request,
            "start_timeout": start_timeout,
        }
