"""URLs of the app, its database and Redis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

# Characters that need no encoding in a query. Alembic's configuration interpolates `%`.
_PLAIN = "/:=',()*"
_PLAIN_IN_PASSWORDS = ",:"  # the lookup `password` also generates these


def database_url(parts: Mapping[str, Any]) -> str:
    """Return the SQLAlchemy URL of a MySQL database.

    Parts: `driver`, `user`, `password`, `host`, `port`, `name`, `socket`, `ca`, `charset`,
    `options`. Without `host`, the URL uses the socket. With `ca`, the driver requires TLS and
    verifies the server's name. PyMySQL and mysqlclient both read these query parameters.
    """
    host = parts.get("host") or ""
    charset = parts.get("charset", "utf8mb4")
    query: dict[str, Any] = {"charset": charset} if charset else {}
    if not host:
        query["unix_socket"] = parts["socket"]
    elif parts.get("ca"):
        query["ssl_ca"] = parts["ca"]
    query.update(parts.get("options") or {})
    location = _location(host, parts.get("port")) if host else ""
    name = quote(str(parts["name"]), safe="")
    return f"{parts['driver']}://{_login(parts)}@{location}/{name}?{_query(query)}"


def redis_url(parts: Mapping[str, Any]) -> str:
    """Return the redis-py URL of a Redis instance.

    Parts: `user`, `password`, `host`, `port`, `socket`, `ca`, `tls`, `db`, `options`.
    Without `host`, the URL uses the socket. With `ca` or `tls` it uses TLS, with the parameters
    that Celery requires.
    """
    host = parts.get("host") or ""
    database = int(parts.get("db") or 0)
    options = dict(parts.get("options") or {})
    if not host:
        return (
            f"unix://{_login(parts)}@{quote(parts['socket'])}?{_query({'db': database, **options})}"
        )
    tls = parts.get("tls") or parts.get("ca")
    if parts.get("ca"):
        options = {"ssl_ca_certs": parts["ca"], **options}
    if tls:
        options = {"ssl_cert_reqs": "required", **options}
    scheme = "rediss" if tls else "redis"
    query = f"?{_query(options)}" if options else ""
    return f"{scheme}://{_login(parts)}@{_location(host, parts.get('port'))}/{database}{query}"


def with_login(
    environment: Mapping[str, Any], old: Mapping[str, str], new: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that hold the login `old`, with `new` instead.

    Both have `user` and `password`, and `url` if the whole URL differs. A variable holds the URL,
    possibly spelled differently, the password or the user. The user is replaced only in a variable
    named after it, since the database often has the same name.
    """
    if not old["password"]:
        return {}
    found = {}
    for name, value in environment.items():
        text = str(value)
        if text == old["password"]:
            changed = new["password"]
        elif text == old["user"] and "user" in name.lower():
            changed = new["user"]
        elif new.get("url") and text == old["url"]:
            changed = new["url"]
        else:
            changed = text.replace(f"{_login(old)}@", f"{_login(new)}@")
        if changed != text:
            found[name] = changed
    return found


def _login(parts: Mapping[str, Any]) -> str:
    password = quote(str(parts["password"]), safe=_PLAIN_IN_PASSWORDS)
    return f"{quote(str(parts['user']), safe='')}:{password}"


def _location(host: str, port: int | str | None) -> str:
    address = f"[{host}]" if ":" in host else host
    return f"{address}:{port}" if port else address


def _query(options: Mapping[str, Any]) -> str:
    return urlencode(
        {name: _option(value) for name, value in options.items()},
        safe=_PLAIN,
        quote_via=quote_plus,
    )


def _option(value: Any) -> str:
    """Return an option's value, with booleans as drivers read them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def needing_encoding(options: Mapping[str, Any]) -> list[str]:
    """Return the names of options that need a `%` in the URL."""
    return [name for name, value in options.items() if "%" in _query({name: value})]


def site_urls(domains: Iterable[str], https: bool, port: int | str, prefix: str) -> list[str]:
    """Return the public URLs of the site, with http if nginx has no https."""
    scheme = "https" if https else "http"
    door = f":{port}" if https and int(port) != 443 else ""
    return [f"{scheme}://{domain}{door}{prefix}/" for domain in domains]


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
