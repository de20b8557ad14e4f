"""Checks of the settings of roles app and gunicorn, for filter `problems`."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from domains import dns_names
from networks import not_networks
from paths import (
    app_paths,
    hidden,
    leaving,
    not_for_apps,
    not_roots,
    overlapping,
)
from problems import Check, check, none_of
from processes import invalid_schedules
from quotes import not_commands, not_environment
from sandbox import unjustified
from urls import needing_encoding

Settings = Mapping[str, Any]

# Names that packages use or reserve. Names in use on a host are checked on the host.
RESERVED = {
    *("acl", "ansible", "default", "fail2ban", "flaskstack", "gunicorn", "information_schema"),
    *("letsencrypt", "mariadb", "memcache", "memcached", "mysql", "mysqld", "nftables", "nginx"),
    *("performance_schema", "postgres", "postgresql", "private", "redis", "root", "sys", "system"),
    *("test", "valkey", "web", "www", "www_data"),
}
UNITS = ["web", "certificate"]  # units that other roles create for the app
DEBUG = ["DEBUG", "FLASK_DEBUG", "WERKZEUG_DEBUG"]
OFF = {"", "0", "false", "no", "off"}
NETWORK_KEYWORDS = {"internet", "any", "localhost"}
PASSWORDS = [f"app_{name}_password" for name in ("database", "migration", "cache", "queue")]
WSGI = re.compile(r"[A-Za-z_]\w*([.][A-Za-z_]\w*)*:[A-Za-z_]\w*([(].*[)])?")
PLACEHOLDER = re.compile(
    "change.?me|secret|password|placeholder|example|insecure|development|your.?key", re.IGNORECASE
)
# Gunicorn settings that role variables or systemd set.
MANAGED = {
    *("bind", "chdir", "daemon", "graceful_timeout", "group", "max_requests"),
    *("max_requests_jitter", "pidfile", "preload_app", "pythonpath", "raw_env", "reload"),
    *("reload_engine", "reload_extra_files", "spew", "threads", "timeout", "user"),
    *("worker_class", "worker_connections", "workers", "wsgi_app"),
}
WORKER = {"name": "worker", "command": "python -m shop.worker"}
NIGHTLY = {"name": "nightly", "command": "flask nightly", "schedule": "daily"}


def app_checks(settings: Settings, inventory_dir: str, hosts: list[str]) -> list[Check]:
    """Return the checks of role app; `hosts` are those that may run singletons."""
    return [
        *_name_checks(settings),
        *_environment_checks(settings),
        *_site_checks(settings),
        *_process_checks(settings, hosts),
        *_path_checks(settings, inventory_dir),
        *_connection_checks(settings),
    ]


def _variables(settings: Settings) -> list[tuple[str, Any]]:
    """Return the app's environment variables, secret variables and process variables."""
    found = [settings["app_environment"], settings["app_secret_environment"]]
    found += [process.get("environment") or {} for process in settings["app_processes"]]
    return [item for variables in found for item in variables.items()]


def _name_checks(settings: Settings) -> Iterable[Check]:
    name, user, root = (settings[f"app_{key}"] for key in ("name", "user", "root"))
    yield check(
        "app_name",
        re.fullmatch("[a-z][a-z0-9_]{0,23}", name) and name not in RESERVED,
        "must be a lower-case letter, then up to 23 lower-case letters, digits or underscores, and "
        "not a name that the system uses: it names the user, folders, units and the database",
        value=name,
        example="shop",
    )
    yield check(
        "app_user",
        re.fullmatch("[a-z_][a-z0-9_-]{0,30}", user)
        and user not in {"root", "www-data", f"{name}-build", f"{name}-redis"},
        "must be a user that only this app has, which limits the harm of a vulnerability",
        value=user,
        example=name,
    )
    yield check(
        "app_root",
        not not_roots([root]),
        "must be a folder that only this app has, of letters, digits and ._- and outside of /home, "
        "/tmp, /var/lib and other folders that belong to the system or are hidden from the app",
        value=root,
        example=f"/srv/{name}",
    )


def _environment_checks(settings: Settings) -> Iterable[Check]:
    variables = _variables(settings)
    yield check(
        "app_env",
        settings["app_env"].lower() not in {"development", "dev", "debug"},
        "must not be a development environment, where a debugger runs code of any visitor",
        value=settings["app_env"],
        example="production",
    )
    yield check(
        "app_environment",
        all(str(value).lower() in OFF for key, value in variables if key in DEBUG),
        f"must not enable debug mode ({', '.join(DEBUG)}), which runs code of any visitor",
        example={"FLASK_DEBUG": "0"},
    )
    yield check(
        "app_environment",
        all(value == "production" for key, value in variables if key == "FLASK_ENV"),
        "must not set FLASK_ENV to another value than production",
        example={"FLASK_ENV": "production"},
    )
    items = [*variables, *settings["app_build_environment"].items()]
    yield none_of(
        "app_environment",
        not_environment([{"key": key, "value": value} for key, value in items]),
        "and app_build_environment must have names of letters, digits and underscores, and values "
        "of one line; a key of several lines, or a list, belongs in a file (app_files)",
        example={"MAIL_SERVER": "localhost"},
    )


def _site_checks(settings: Settings) -> Iterable[Check]:
    prefix, health, domains = (settings[f"app_{k}"] for k in ("prefix", "health_path", "domains"))
    yield check(
        "app_prefix",
        re.fullmatch("(/[A-Za-z0-9._~-]+)*", prefix),
        "must be empty, or begin with a slash and end without one",
        value=prefix,
        example="/shop",
    )
    yield check(
        "app_health_path",
        re.fullmatch("/[!-~]*", health) and not set("?#") & set(health),
        "must be a URL path that begins with a slash, with characters outside of ASCII as %…",
        value=health,
        example="/healthz",
    )
    yield check(
        "app_domains",
        dns_names(domains) == domains,
        "must be names as in a browser's requests, each once, without scheme, port, path or final "
        "dot, in lower case, and as xn--… for letters outside of ASCII",
        value=domains,
        example=dns_names(domains),
    )
    for variable, least, most, limits, example in (
        ("app_https_port", 1, 65535, "a port, 1 to 65535", 443),
        ("app_upload_size", 1, None, "1 MiB or more", 10),
        ("app_header_size", 4, 64, "4 to 64 KiB", 16),
        (
            *("app_request_timeout", 5, None),
            *("5 seconds or more, so that the timeouts derived from it have room", 30),
        ),
    ):
        number = int(settings[variable])
        yield check(
            variable.replace("app_request_timeout", "request_timeout"),
            number >= least and (most is None or number <= most),
            f"must be {limits}",
            value=settings[variable],
            example=example,
        )
    yield check(
        "app_trusted_proxy_hops",
        not settings["app_proxy_fix"] or int(settings["app_trusted_proxy_hops"]) >= 1,
        "must be 1 or more for app_proxy_fix to have an effect",
        value=settings["app_trusted_proxy_hops"],
        example=1,
    )


def _process_checks(settings: Settings, hosts: list[str]) -> Iterable[Check]:
    processes = settings["app_processes"]
    names = [process["name"] for process in processes]
    yield check(
        "app_processes",
        all(re.fullmatch("[a-z][a-z0-9_-]{0,30}", name) and name not in UNITS for name in names),
        "must have names of lower-case letters, digits, underscores and dashes, and not those of "
        f"other units of the app ({', '.join(UNITS)})",
        value=names,
        example=[WORKER],
    )
    yield check(
        "app_processes",
        len(set(names)) == len(names),
        "must name each process once; for more of the same raise its `instances`",
        value=names,
        example=[WORKER | {"instances": 2}],
    )
    yield none_of(
        "app_processes",
        not_commands(processes),
        "must have a command of one line, in YAML after >- where it is long; use sh -c '…' for "
        "several commands",
        example=[WORKER],
    )
    server = _development_server(settings.get("app_wsgi") or "")
    yield none_of(
        "app_processes",
        [each["command"] for each in processes if server.search(str(each["command"]))],
        "must not run a development server, since Gunicorn serves the site",
        example=[WORKER],
    )
    for field, least, limits, example in (
        ("instances", 0, "instances of 0 (declared, but stopped) or more", WORKER),
        ("stop_timeout", 1, "a stop_timeout of 1 second or more", WORKER),
        ("random_delay", 0, "a random_delay of 0 seconds or more", NIGHTLY),
    ):
        yield check(
            "app_processes",
            all(int(process.get(field, least)) >= least for process in processes),
            f"must have {limits}",
            example=[example | {field: {"instances": 2, "stop_timeout": 60}.get(field, 600)}],
        )
    limits = [int(process.get("memory_limit", 0)) for process in processes]
    yield check(
        "app_processes",
        all(limit == 0 or limit >= 16 for limit in limits),
        "must have a memory_limit of 16 MiB or more, or 0 for no limit",
        value=limits,
        example=[WORKER | {"memory_limit": 256}],
    )
    yield none_of(
        "app_processes",
        invalid_schedules(processes),
        "must have schedules in the format of systemd's OnCalendar, not that of cron",
        example=[NIGHTLY | {"schedule": "*-*-* 03:30"}],
    )
    scheduled = [process for process in processes if process.get("schedule")]
    yield check(
        "app_processes",
        all(int(process.get("instances", 1)) <= 1 for process in scheduled),
        "must have no more than 1 instance of a process with a schedule: runs do not overlap",
        example=[NIGHTLY],
    )
    yield check(
        "app_singleton_host",
        settings["app_singleton_host"] in hosts,
        "must be a host of group app",
        value=settings["app_singleton_host"],
        example=hosts[0],
    )


def _development_server(wsgi: str) -> re.Pattern[str]:
    """Return the pattern of commands that start a development server or run the app's module."""
    module = wsgi.split(":")[0] or "-"
    script = re.escape(module.replace(".", "/"))
    return re.compile(
        r"flask(\s+-\S+(\s+[^-\s]\S*)?)*\s+run(\s|$)|runserver|werkzeug|"
        rf"python[0-9.]*\s+(-m\s+{re.escape(module)}|(\./)?{script}\.py)(\s|$)"
    )


def _path_checks(settings: Settings, inventory_dir: str) -> Iterable[Check]:
    name, root = settings["app_name"], settings["app_root"]
    paths = app_paths(settings)
    dests = [file["dest"] for file in settings["app_files"]]
    template = {"template": "templates/local.py.j2", "dest": "shop/local.py"}
    sources = [settings[f"app_source_{kind}"] for kind in ("folder", "git", "archive")]
    yield check(
        "app_source_folder",
        len([source for source in sources if source]) <= 1,
        "must be the only source; app_source_git or app_source_archive is set too",
        value=settings["app_source_folder"],
    )
    static = [entry["folder"] for entry in settings["app_static"]]
    yield none_of(
        "app_shared_paths",
        leaving(settings["app_shared_paths"] + static),
        "must be folders inside the release, as must the folders of app_static, and not its .venv",
        example=["uploads"],
    )
    instance = [path for path in [settings["app_instance_path"]] if path and path[0] != "/"]
    yield none_of(
        "app_shared_files",
        leaving([*settings["app_shared_files"], *paths["generated"], *instance]),
        "and app_instance_path and the dest of app_files must be inside the release, and not its "
        ".venv or .release.env",
        example=["data/shop.db"],
    )
    yield none_of(
        "app_shared_files",
        overlapping([*paths["shared"], *settings["app_shared_files"], *paths["generated"]]),
        "must be named once among app_shared_files, app_shared_paths, app_instance_path and "
        "app_files, and must not be below another of them, which is outside the release already",
        example=["data/shop.db"],
    )
    yield check(
        "app_shared_paths",
        not settings["app_shared_files"]
        or not [path for path in paths["shared"] if path.split("/")[0] == "files"],
        "must not contain files, where app_shared_files are stored",
        value=paths["shared"],
        example=["uploads"],
    )
    absolute = paths["absolute_dests"]
    yield check(
        "app_files",
        all(dest.startswith(f"/etc/{name}/") for dest in absolute),
        f"must have a dest inside the release, or an absolute one below /etc/{name}",
        value=dests,
        example=[template],
    )
    own = re.compile(r"/etc/[^/]*/(environment$|gunicorn[.]conf[.]py$|files(/|$))")
    yield check(
        "app_files",
        not any(own.match(dest) for dest in absolute),
        "must not write files that role gunicorn writes",
        value=dests,
        example=[template | {"dest": f"/etc/{name}/local.py"}],
    )
    templates = [Path(inventory_dir, file["template"]) for file in settings["app_files"]]
    yield none_of(
        "app_files",
        [str(path) for path in templates if not path.is_file()],
        "must have templates that are files on this machine",
        example=[template],
    )
    yield none_of(
        "app_writable_paths",
        leaving(path for path in settings["app_writable_paths"] if path[:1] != "/"),
        f"must be folders below {root}/shared, or absolute",
        example=["exports", "/var/spool/shop"],
    )
    yield none_of(
        "app_writable_paths",
        not_for_apps(paths["writable"], root, name),
        "and app_instance_path must be folders that only the app uses, since it becomes their "
        f"owner: not those of the system (in /var/lib and the like the app has those named {name})"
        f", nor any of {root} outside of its shared/",
        example=["exports", "/var/spool/shop"],
    )
    readable = settings["app_readable_paths"]
    plain = re.compile(r"(/[A-Za-z0-9._-]+)+/?")
    yield none_of(
        "app_readable_paths",
        [
            path
            for path in readable
            if not plain.fullmatch(path) or ".." in path.split("/") or hidden([path])
        ],
        "must be absolute paths of letters, digits and ._- without .. and neither the whole file "
        "system nor in /home, /root or /run/user, which the sandbox always hides",
        example=["/srv/films"],
    )


def _connection_checks(settings: Settings) -> Iterable[Check]:
    invalid = [
        name
        for name in PASSWORDS
        if not re.fullmatch(r"[A-Za-z0-9.,:_~-]*", str(settings.get(name) or ""))
    ]
    yield check(
        invalid[0] if invalid else PASSWORDS[0],
        not invalid,
        "must consist of letters, digits and .,:_~- since a URL has others as a % and two digits, "
        "which Alembic's configuration, for one, interprets",
    )
    yield check(
        "app_database_charset",
        re.fullmatch("[a-z0-9_]*", settings["app_database_charset"]),
        "must be a character set of MySQL, or empty",
        value=settings["app_database_charset"],
        example="utf8mb4",
    )
    yield none_of(
        "app_database_options",
        needing_encoding(settings["app_database_options"]),
        "must not need a % in the URL, which Alembic's configuration interprets",
        example={"init_command": "SET time_zone='UTC'"},
    )
    yield none_of(
        "app_network",
        not_networks(item for item in settings["app_network"] if item not in NETWORK_KEYWORDS),
        "must contain internet, any, localhost, IP addresses or CIDRs; rules cannot match names",
        example=["internet", "10.0.0.7", "fd00:1::/64"],
    )


def gunicorn_checks(settings: Settings) -> Iterable[Check]:
    """Return the checks of role gunicorn."""
    wsgi, key = (str(settings.get(f"app_{name}") or "") for name in ("wsgi", "secret_key"))
    yield check(
        "app_wsgi",
        WSGI.fullmatch(wsgi) and not re.search(r":(run|main)\b", wsgi),
        "must be what Gunicorn serves, as module:object or module:factory(), and never a "
        "development server",
        value=wsgi,
        example="shop.web:create_app()",
    )
    yield check(
        "app_secret_key",
        len(key) >= 32,
        "must be random, of 32 characters or more, since it signs sessions",
    )
    yield check(
        "app_secret_key",
        len(key) < 32 or (not PLACEHOLDER.search(key) and len(set(key)) >= 10),
        "must be random, not the placeholder of an example",
    )
    yield check(
        "app_environment",
        not {name for name, _ in _variables(settings)}
        & {"SECRET_KEY", "SECRET_KEY_FALLBACKS", "GUNICORN_CMD_ARGS"},
        "must not set SECRET_KEY (use app_secret_key), SECRET_KEY_FALLBACKS (use "
        "app_secret_key_previous) or GUNICORN_CMD_ARGS (use gunicorn_settings)",
        example={},
    )
    own = settings["gunicorn_settings"]
    yield check(
        "gunicorn_settings",
        not MANAGED & set(own),
        f"must not contain {', '.join(sorted(MANAGED & set(own)))}, which systemd and variables of "
        "the app and the role (gunicorn_workers …) set; code is not reloaded in production",
        value=list(own),
        example={"proc_name": "shop"},
    )
    yield check(
        "gunicorn_settings",
        all(re.fullmatch("[a-z][a-z0-9_]*", str(name)) for name in own),
        "must have Gunicorn's names, as they are written in its configuration file",
        value=list(own),
        example={"proc_name": "shop"},
    )
    worker_class = settings["gunicorn_worker_class"]
    yield check(
        "gunicorn_worker_class",
        worker_class != "sync"
        or not settings["app_streaming_paths"] + settings["app_websocket_paths"],
        "must be gevent, or gthread for few of them, where there are app_streaming_paths or "
        "app_websocket_paths; each would occupy a sync worker, which Gunicorn kills after "
        "gunicorn_timeout",
        value=worker_class,
        example="gevent",
    )
    numbers = {
        name: int(settings[f"gunicorn_{name}"])
        for name in (
            *("workers", "threads", "worker_connections"),
            *("timeout", "graceful_timeout", "stop_timeout"),
        )
    }
    yield check(
        "gunicorn_worker_connections",
        numbers["worker_connections"] >= 1,
        "must be 1 or more",
        value=numbers["worker_connections"],
        example=500,
    )
    yield none_of(
        "gunicorn_sandbox_exceptions",
        unjustified(settings["gunicorn_sandbox_exceptions"]),
        "must have, for each option of systemd, a value and a reason of more than one word",
        example={
            "MemoryDenyWriteExecute": {"value": False, "reason": "numba compiles machine code"}
        },
    )
    yield check(
        "gunicorn_workers",
        min(numbers["workers"], numbers["threads"]) >= 1,
        "must be 1 or more, and so must gunicorn_threads",
        value=numbers["workers"],
        example=2,
    )
    yield check(
        "gunicorn_graceful_timeout",
        1 <= numbers["timeout"] <= numbers["graceful_timeout"],
        "must not be below gunicorn_timeout, or a restart cuts requests that may take longer",
        value=numbers["graceful_timeout"],
        example=numbers["timeout"],
    )
    yield check(
        "gunicorn_stop_timeout",
        numbers["stop_timeout"] > numbers["graceful_timeout"],
        "must be longer than gunicorn_graceful_timeout, or systemd kills requests that Gunicorn is "
        "finishing",
        value=numbers["stop_timeout"],
        example=numbers["graceful_timeout"] + 10,
    )


def schedule_checks(results: Iterable[Mapping[str, Any]]) -> Iterable[Check]:
    """Return the check of the `systemd-analyze calendar` results, one for each process."""
    yield none_of(
        "app_processes",
        [
            result["item"]["schedule"]
            for result in results
            if not re.search("Next elapse: (?!never)", result["stdout"])
        ],
        "must have schedules with a future run",
        example=[NIGHTLY | {"schedule": "*-*-* 03:30"}],
    )


def singleton_checks(
    results: Iterable[Mapping[str, Any]],
    units: list[str],
    host: str,
    *,
    stopped_here: str = "",
    inventory_dir: str = "",
) -> Iterable[Check]:
    """Return the checks before singletons move to `host`.

    `results` are those of hosts outside this run. `stopped_here` is the host of this run that stops
    singletons if the host that starts them is not in the run.
    """
    results = list(results)
    names = ", ".join(units)
    left = [result["item"] for result in results if result.get("moves")]
    left += [stopped_here] if stopped_here else []
    silent = [result["item"] for result in results if result.get("unreachable")]
    yield check(
        "app_singleton_host",
        not left,
        f"must be the host where {names} runs ({', '.join(left)}) unless the run has both hosts, "
        "since it is stopped there first. Nothing was moved",
        value=host,
        example=left[0] if left else host,
    )
    yield check(
        "app_singleton_host",
        not silent,
        f"cannot get {names} while {', '.join(silent)}, where it may run, does not answer",
        value=host,
        remedy=f"Nothing was moved. Remove that host from {inventory_dir}/hosts.yml if it is gone",
    )


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "app_checks": app_checks,
            "gunicorn_checks": gunicorn_checks,
            "schedule_checks": schedule_checks,
            "singleton_checks": singleton_checks,
        }
