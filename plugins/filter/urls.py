"""Write the URLs under which the app finds its database and its two Redis instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode


def database_url(parts: Mapping[str, Any]) -> str:
    """Return SQLAlchemy's URL of a MySQL database.

    Parts: `driver`, `user`, `password`, `host`, `port`, `name`, `socket`, `ca`, `options`.
    Without a host it is the socket's. With `ca` the driver speaks only TLS and checks the server's
    name. The query names are those that PyMySQL and mysqlclient share.
    """
    host = parts.get("host") or ""
    query: dict[str, Any] = {"charset": "utf8mb4"}
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
    Without a host it is the socket's. With `ca` or `tls` it is TLS.
    """
    host = parts.get("host") or ""
    database = int(parts.get("db") or 0)
    options = dict(parts.get("options") or {})
    if not host:
        return (
            f"unix://{_login(parts)}@{quote(parts['socket'])}?{_query({'db': database, **options})}"
        )
    if parts.get("ca"):
        options = {"ssl_ca_certs": parts["ca"], **options}
    scheme = "rediss" if parts.get("tls") or parts.get("ca") else "redis"
    query = f"?{_query(options)}" if options else ""
    return f"{scheme}://{_login(parts)}@{_location(host, parts.get('port'))}/{database}{query}"


def _login(parts: Mapping[str, Any]) -> str:
    return f"{quote(str(parts['user']), safe='')}:{quote(str(parts['password']), safe='')}"


def _location(host: str, port: int | str | None) -> str:
    address = f"[{host}]" if ":" in host else host
    return f"{address}:{port}" if port else address


def _query(options: Mapping[str, Any]) -> str:
    return urlencode(
        {name: str(value) for name, value in options.items()}, safe="/", quote_via=quote
    )


class FilterModule:
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {"database_url": database_url, "redis_url": redis_url}
