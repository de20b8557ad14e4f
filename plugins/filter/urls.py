"""Write the URLs of the app's database and Redis, and those of the app itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

# What a query may hold as it is. Alembic's configuration takes every `%` for its own.
_PLAIN = "/:=',()*"
_PLAIN_IN_PASSWORDS = ",:"  # which Ansible's lookup `password` makes, among letters and digits


def database_url(parts: Mapping[str, Any]) -> str:
    """Return SQLAlchemy's URL of a MySQL database.

    Parts: `driver`, `user`, `password`, `host`, `port`, `name`, `socket`, `ca`, `charset`,
    `options`. Without a host it is the socket's. With `ca` the driver speaks only TLS and checks
    the server's name. The query names are those that PyMySQL and mysqlclient share.
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
    """Return redis-py's URL of a Redis instance.

    Parts: `user`, `password`, `host`, `port`, `socket`, `ca`, `tls`, `db`, `options`.
    Without a host it is the socket's. With `ca` or `tls` it is TLS, and says so in Celery's words.
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
    """Return those variables that hold the login `old`, with `new` in its place.

    Both have `user` and `password`, and `url` where it is another one altogether. A variable holds
    the URL, one of another spelling, the password, or the user; the user only if its name says so,
    since the database is often called the same.
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
    """Write true and false as drivers read them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def needing_encoding(options: Mapping[str, Any]) -> list[str]:
    """Return the names of options that a URL can hold only with a `%`."""
    return [name for name, value in options.items() if "%" in _query({name: value})]


def site_urls(domains: Iterable[str], https: bool, port: int | str, prefix: str) -> list[str]:
    """Return where visitors find the site: by http where nginx has no https."""
    scheme = "https" if https else "http"
    door = f":{port}" if https and int(port) != 443 else ""
    return [f"{scheme}://{domain}{door}{prefix}/" for domain in domains]


class FilterModule:
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {
            "database_url": database_url,
            "redis_url": redis_url,
            "with_login": with_login,
            "site_urls": site_urls,
        }
