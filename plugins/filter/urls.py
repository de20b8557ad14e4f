"""URLs of the app, its database and Redis."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

sys.path.append(str(Path(__file__).parent))

from networks import LOOPBACK

# Characters that stay unencoded in a query, since Alembic's configuration interpolates `%`.
_PLAIN = "/:=',()*"
_PLAIN_IN_PASSWORDS = ",:"  # the lookup `password` also generates these


def database_url(parts: Mapping[str, Any]) -> str:
    """Return the SQLAlchemy URL of a MySQL database; empty without a password.

    Parts: `driver`, `user`, `password`, `host`, `port`, `name`, `socket`, `ca`, `charset`,
    `options`. Without `host`, the URL uses the socket. With `ca`, the driver requires TLS and
    verifies the server's name. PyMySQL and mysqlclient both read these query parameters.
    """
    if not parts["password"]:
        return ""
    host = parts["host"]
    query: dict[str, Any] = {"charset": parts["charset"]} if parts["charset"] else {}
    if not host:
        query["unix_socket"] = parts["socket"]
    elif parts["ca"]:
        query["ssl_ca"] = parts["ca"]
    query |= parts["options"]
    location = _location(host, parts["port"]) if host else ""
    name = quote(str(parts["name"]), safe="")
    return f"{parts['driver']}://{_login(parts)}@{location}/{name}?{_query(query)}"


def redis_url(parts: Mapping[str, Any]) -> str:
    """Return the redis-py URL of a Redis instance; empty without a password.

    Parts: `user`, `password`, `host`, `port`, `socket`, `ca`. Without `host`, the URL uses the
    socket. For a remote host it uses TLS, with the parameters that Celery requires.
    """
    if not parts["password"]:
        return ""
    host = parts["host"]
    if not host:
        return f"unix://{_login(parts)}@{quote(parts['socket'])}?db=0"
    address = f"{_login(parts)}@{_location(host, parts['port'])}/0"
    if host in LOOPBACK:
        return f"redis://{address}"
    options = {"ssl_cert_reqs": "required"}
    options |= {"ssl_ca_certs": parts["ca"]} if parts["ca"] else {}
    return f"rediss://{address}?{_query(options)}"


def with_login(
    environment: Mapping[str, Any],
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    urls: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the variables that hold the login `old`, with `new` instead.

    Both have `user` and `password`. `urls` maps old URLs to new ones. A variable may hold the URL,
    possibly spelled differently, the password or the user. The user is replaced only in variables
    with `user` in their name, since the database often has the same name as the user.
    """
    found = {}
    for name, value in environment.items():
        text = str(value)
        if text and text in (urls or {}):
            found[name] = urls[text]
        elif not old["password"]:
            continue
        elif text == old["password"]:
            found[name] = new["password"]
        elif text == old["user"] and "user" in name.lower():
            found[name] = new["user"]
        else:
            found[name] = text.replace(f"{_login(old)}@", f"{_login(new)}@")
    return {name: text for name, text in found.items() if text != str(environment[name])}


def _login(parts: Mapping[str, Any]) -> str:
    password = quote(str(parts["password"]), safe=_PLAIN_IN_PASSWORDS)
    return f"{quote(str(parts['user']), safe='')}:{password}"


def _location(host: str, port: int | str) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _query(options: Mapping[str, Any]) -> str:
    return urlencode(
        {name: _option(value) for name, value in options.items()},
        safe=_PLAIN,
        quote_via=quote_plus,
    )


def _option(value: Any) -> str:
    """Return an option's value, with booleans in lower case as drivers expect."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def needing_encoding(options: Mapping[str, Any]) -> list[str]:
    """Return the names of options that need a `%` in the URL."""
    return [name for name, value in options.items() if "%" in _query({name: value})]


def site_urls(domains: Iterable[str], https: bool, port: int | str, prefix: str) -> list[str]:
    """Return the public URLs of the site, with http if nginx has no https."""
    scheme = "https" if https else "http"
    location = f":{port}" if https and int(port) != 443 else ""
    return [f"{scheme}://{domain}{location}{prefix}/" for domain in domains]


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "database_url": database_url,
            "redis_url": redis_url,
            "with_login": with_login,
            "site_urls": site_urls,
        }
