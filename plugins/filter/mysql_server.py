"""Shared settings, local facts, accounts and checks of role mysql."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from networks import LOOPBACK
from plan_inputs import NUMBERS
from problems import check
from quotes import not_lines

Settings = Mapping[str, Any]
Facts = dict[str, Any]
Check = dict[str, Any]

RESERVED_CONNECTIONS = 10  # for administrators
LEAST_PACKET, MOST_PACKET = 64, 1024  # MiB; MySQL's default, and the maximum of both servers
# Reserved names. They are validated before the server is installed.
SCHEMAS = ["information_schema", "mysql", "performance_schema", "sys"]
RESERVED_USERS = [
    *("debian-sys-maint", "mariadb.sys", "mysql", "mysql.infoschema", "mysql.session", "mysql.sys"),
    "root",
]
ACCOUNTS = ("app_database_user", "app_background_user", "app_migration_user")
# Settings that the plans of other apps on the host read from the local facts.
PLANNED = [
    *("mysql_innodb_lock_wait_timeout", "mysql_connect_timeout", "mysql_net_read_timeout"),
    *("mysql_net_write_timeout", "mysql_interactive_timeout", "mysql_innodb_buffer_pool_size"),
]


def packet_size(upload: Any) -> int:
    """Return the MiB of a statement that stores `upload` MiB in hexadecimal: two digits a byte."""
    return min(max(LEAST_PACKET, 2 * int(upload) + 2), MOST_PACKET)


def shared_settings(server: Settings, apps: Iterable[Facts]) -> dict[str, Any]:
    """Return the settings that must suffice for all apps of a server.

    `server` has their minimum values. An app has `connections`, `pool_recycle` and `packet`.
    """
    apps = list(apps)
    recycle = max(int(app["pool_recycle"]) for app in apps)
    wait = int(server.get("wait_timeout", 0))
    connections = sum(int(app["connections"]) for app in apps) + RESERVED_CONNECTIONS
    return {
        "max_connections": max(int(server.get("max_connections", 0)), connections),
        "wait_timeout": wait if wait > recycle else 2 * recycle,
        "max_allowed_packet": f"{max(int(app['packet']) for app in apps)}M",
    }


def mysql_facts(settings: Settings, local: Mapping[str, Any], connections: Any) -> Facts:
    """Return the facts of a host's apps about their MySQL server.

    `server` has the facts of the first app on the host, which owns the server. `app` has the facts
    of this app, which needs `connections`; `apps` has those of all apps. `shared` has the settings
    that suffice for all apps; `required` is the same without the values of this inventory.
    """
    name = settings["app_name"]
    app = {
        "app": name,
        "database": settings["app_database_name"],
        "users": list(dict.fromkeys(settings[account] for account in ACCOUNTS)),
        "address": settings["mysql_bind_address"],
        "port": int(settings["app_database_port"]),
        "connections": int(connections) - RESERVED_CONNECTIONS,
        "pool_recycle": int(settings["app_database_pool_recycle"]),
        "packet": int(settings["mysql_max_allowed_packet"]),
    }
    recorded = [value for key, value in local.items() if key.startswith("flaskstack_mysql_")]
    others = [other for other in recorded if other["app"] != name]
    minimum = {
        "max_connections": settings["mysql_max_connections"],
        "wait_timeout": settings["mysql_wait_timeout"],
    }
    shared = shared_settings(minimum, [app, *others])
    server = local.get("flaskstack_mysql") or {"app": name}
    if server["app"] == name:
        plan: dict[str, Any] = {name: int(settings[name]) for name in PLANNED}
        plan |= {f"mysql_{key}": shared[key] for key in minimum}
        plan["mysql_performance_schema"] = bool(settings["mysql_performance_schema"])
        server = {key: app[key] for key in ("app", "address", "port")}
        server |= {"provider": settings["mysql_provider"], "plan": plan}
    return {
        "server": server,
        "app": app,
        "apps": [app, *others],
        "shared": shared,
        "required": shared_settings({}, [app, *others]),
    }


def mysql_accounts(settings: Settings) -> list[dict[str, Any]]:
    """Return the app's accounts with their passwords, privileges and statement time limits."""
    app = {
        "secret": "database",
        "password": settings["app_database_password"],
        "previous": settings["app_database_password_previous"],
        "privileges": ",".join(settings["mysql_app_privileges"]),
    }
    migration = {
        "secret": "migration",
        "password": settings["app_migration_password"],
        "previous": settings["app_migration_password_previous"],
        "privileges": "ALL",
        "limit": 0,
    }
    limits = {
        settings["app_background_user"]: settings["mysql_background_statement_timeout"],
        settings["app_database_user"]: settings["mysql_statement_timeout"],
    }
    accounts = [app | {"name": name, "limit": int(limit)} for name, limit in limits.items()]
    return [*accounts, migration | {"name": settings["app_migration_user"]}]


def mysql_checks(
    settings: Settings, facts: Facts, host: str, app_hosts: list[str]
) -> Iterator[Check]:
    """Return the checks of role mysql on a host; `facts` is the result of `mysql_facts`."""
    server, (app, *others) = facts["server"], facts["apps"]
    yield from _account_checks(settings, others, host)
    yield from _network_checks(settings, server, host, app_hosts)
    yield from _setting_checks(settings, server["app"] == app["app"])
    yield from _server_checks(settings, server, facts["apps"], host)


def _account_checks(settings: Settings, others: list[Facts], host: str) -> Iterator[Check]:
    for variable in ("app_database_password", "app_migration_password"):
        long = len(settings.get(variable) or "") >= 12
        yield check(variable, long, "must have 12 characters or more")
    app, database = settings["app_name"], settings["app_database_name"]
    valid = re.fullmatch("[A-Za-z0-9_$-]{1,64}", database) and database.lower() not in SCHEMAS
    reason = f"must be 1 to 64 of A-Z, a-z, 0-9, _, $ and -, and none of {', '.join(SCHEMAS)}"
    yield check("app_database_name", valid, reason, example=app)
    reason = f"must not be the database of another app of {host}"
    free = database not in [other["database"] for other in others]
    yield check("app_database_name", free, reason, example=app)
    used = {user for other in others for user in other["users"]}
    examples = (app, f"{app}_jobs", f"{app}_migrate")
    for variable, example in zip(ACCOUNTS, examples, strict=True):
        user = settings[variable]
        valid = re.fullmatch("[A-Za-z0-9_.$-]{1,32}", user) and user not in RESERVED_USERS
        reason = "must be 1 to 32 of A-Z, a-z, 0-9, _, ., $ and -, and none of "
        yield check(variable, valid, reason + ", ".join(RESERVED_USERS), example=example)
        reason = f"must not be an account of another app of {host}"
        yield check(variable, user not in used, reason, example=example)
    user, background, migration = (settings[variable] for variable in ACCOUNTS)
    reason = "must differ from app_database_user and app_background_user, which may not change the"
    differs = migration not in (user, background)
    yield check("app_migration_user", differs, f"{reason} schema", example=examples[2])


def _network_checks(
    settings: Settings, server: Facts, host: str, app_hosts: list[str]
) -> Iterator[Check]:
    bind, client = settings["mysql_bind_address"], settings["app_database_host"]
    reason = "must be one address of this host, for others; the server also listens on 127.0.0.1"
    one = bind not in {*LOOPBACK, "0.0.0.0", "::", "*"}
    yield check("mysql_bind_address", one, reason, example="10.0.0.5")
    reason = f"must be an address of this host, since the app runs on {', '.join(app_hosts)}"
    reached = bind or not {*app_hosts} - {host}
    yield check("mysql_bind_address", reached, reason, example="10.0.0.5")
    reason = "must be 127.0.0.1, where the server listens"
    yield check("app_database_host", client != "::1", reason, example="127.0.0.1")
    address = server["address"]
    reason = (
        f"must be empty (the socket) or {address}, since the server of {host} requires TLS at its "
        f"ports, with a certificate for {address}"
    )
    yield check("app_database_host", client not in LOOPBACK or not address, reason, example="")


def _setting_checks(settings: Settings, is_owner: bool) -> Iterator[Check]:
    packaged = not settings["mysql_apt_source"] or settings["mysql_provider"] == "mysql"
    reason = "must be mysql, since the packages of mysql_apt_source do not include MariaDB"
    yield check("mysql_provider", packaged, reason, example="mysql")
    more = settings["mysql_settings"]
    valid = all(re.fullmatch("[a-z][a-z0-9_-]*", name) for name in more) and not not_lines(more)
    reason = "must have names as in my.cnf, and values of one line"
    yield check("mysql_settings", valid, reason, example={"max_allowed_packet": "64M"})
    valid = re.fullmatch("utf8mb4_[a-z0-9_]+", settings["mysql_collation"])
    reason = "must be a collation of utf8mb4, the only character set that holds every character"
    yield check("mysql_collation", valid, reason, example="utf8mb4_unicode_520_ci")
    for name, (least, most, example, unit) in NUMBERS.items():
        if name.startswith("mysql_"):
            valid = least <= int(settings[name]) <= most
            yield check(name, valid, f"must be {least} to {most} {unit}", example=example)
    recycle = int(settings["app_database_pool_recycle"])
    reason = f"must be longer than app_database_pool_recycle ({recycle}), or the app's pool returns"
    longer = not is_owner or int(settings["mysql_wait_timeout"]) > recycle
    reason += " connections that the server has closed"
    yield check("mysql_wait_timeout", longer, reason, example=2 * recycle)
    statement = int(settings["mysql_statement_timeout"])
    shorter = int(settings["mysql_innodb_lock_wait_timeout"]) < statement
    reason = (
        f"must be shorter than mysql_statement_timeout ({statement}), so that a wait for a lock"
    )
    reason += " ends with the error of that timeout"
    example = max(statement // 2, 1)
    yield check("mysql_innodb_lock_wait_timeout", shorter, reason, example=example)


def _server_checks(
    settings: Settings, server: Facts, apps: list[Facts], host: str
) -> Iterator[Check]:
    app, owner = apps[0], server["app"]
    addresses = {one["app"]: one["address"] for one in apps if one["address"]}
    named = ", ".join(f"{name} has {address}" for name, address in addresses.items())
    yield check(
        "mysql_bind_address",
        {*addresses.values()} <= {server["address"]},
        f"must be the same for all apps of {host}, which share one server ({named})",
        value=server["address"],
        example=next(iter(addresses.values()), ""),
        remedy=f"The server belongs to {owner}: in the inventory of {owner} set mysql_bind_address:"
        f" {app['address']}, run its site.yml, then this again"
        if owner != app["app"]
        else "",
    )
    ports = {one["port"] for one in apps if one["address"]}
    ports |= {app["port"]} if settings["app_database_host"] in LOOPBACK else set()
    reason = f"must be the port of the server of {owner}, which all apps of {host} share"
    yield check("app_database_port", ports <= {server["port"]}, reason, example=server["port"])
    same = settings["mysql_provider"] == server["provider"]
    reason = f"must be that of the server of {owner}, which all apps of {host} share"
    yield check("mysql_provider", same, reason, example=server["provider"])


def installed_server_checks(
    provider: str, files: Iterable[Mapping[str, Any]], host: str
) -> Iterator[Check]:
    """Return the check of the provider against the installed servers.

    `files` is the list of server binaries from module find.
    """
    found = {Path(file["path"]).name for file in files}
    # MariaDB's package has both binaries.
    installed = "mariadb" if "mariadbd" in found else "mysql" if found else provider
    reason = f"differs from the server on {host}, and their data files are incompatible; a change "
    reason += "takes a dump and a new host"
    yield check("mysql_provider", provider == installed, reason, value=provider, example=installed)


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "installed_server_checks": installed_server_checks,
            "mysql_accounts": mysql_accounts,
            "mysql_checks": mysql_checks,
            "mysql_facts": mysql_facts,
            "packet_size": packet_size,
        }
