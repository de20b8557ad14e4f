"""Checks of the settings of role app that its argument spec cannot express.

Settings are variables by name, with values of the types in the specs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from domains import dns_names
from networks import KEYWORDS, not_networks
from paths import (
    app_paths,
    forbidden_paths,
    hidden_paths,
    invalid_roots,
    outside_release,
    overlapping,
)
from problems import SECRETS, Check, check, none_of
from processes import invalid_schedules
from quotes import not_commands, not_environment
from urls import needing_encoding

Settings = Mapping[str, Any]

# Names that packages use or reserve. Names in use on a host are checked on the host.
RESERVED = {
    *("acl", "ansible", "default", "fail2ban", "flaskstack", "gunicorn", "information_schema"),
    *("letsencrypt", "mariadb", "memcache", "memcached", "mysql", "mysqld", "nftables", "nginx"),
    *("performance_schema", "postgres", "postgresql", "private", "redis", "root", "sys", "system"),
    *("test", "valkey", "web", "www", "www_data"),
}
UNITS = ["web", "backup", "certificate"]  # units that other roles create for the app
DEBUG = ["DEBUG", "FLASK_DEBUG", "WERKZEUG_DEBUG"]
OFF = {"", "0", "false", "no", "off"}
PASSWORDS = [name for name in SECRETS if name.endswith("_password")]
# Minimum, maximum and unit of each number.
RANGES: dict[str, tuple[int, int, str]] = {
    "app_https_port": (1, 65535, ""),
    "app_upload_size": (1, 1_048_576, " MiB"),
    "app_header_size": (4, 64, " KiB"),
}
WORKER = {"name": "worker", "command": "python -m shop.worker"}
NIGHTLY = {"name": "nightly", "command": "flask nightly", "schedule": "*-*-* 03:30"}


def app_checks(settings: Settings, inventory_dir: str, hosts: list[str]) -> list[Check]:
    """Return the checks of role app; `hosts` are those that may run singletons."""
    return with_values(
        settings,
        *_name_checks(settings),
        *_environment_checks(settings),
        *_site_checks(settings),
        *_process_checks(settings, hosts),
        *_path_checks(settings, inventory_dir),
        *_connection_checks(settings),
    )


def with_values(settings: Settings, *checks: Check) -> list[Check]:
    """Return the checks with the values of variables that are short and not secret."""
    return [
        {"value": settings[name]} | each
        if isinstance(settings.get(name := each["variable"]), str | int) and name not in SECRETS
        else each
        for each in checks
    ]


def environment_variables(settings: Settings) -> list[tuple[str, Any]]:
    """Return the app's environment variables, secret variables and process variables."""
    found = [settings["app_environment"], settings["app_secret_environment"]]
    found += [process["environment"] for process in settings["app_processes"]]
    return [item for variables in found for item in variables.items()]


def _name_checks(settings: Settings) -> Iterator[Check]:
    name, user, root = (settings[f"app_{key}"] for key in ("name", "user", "root"))
    yield check(
        "app_name",
        re.fullmatch("[a-z][a-z0-9_]{0,23}", name) and name not in RESERVED,
        "must be a lower-case letter, then up to 23 lower-case letters, digits or underscores, and "
        "not a name that the system uses: it names the user, folders, units and the database",
        example="shop",
    )
    yield check(
        "app_user",
        re.fullmatch("[a-z_][a-z0-9_-]{0,30}", user)
        and user not in {"root", "www-data", f"{name}-build", f"{name}-redis"},
        "must be a user that only this app has, which limits the harm of a vulnerability",
        example=name,
    )
    yield check(
        "app_root",
        not invalid_roots([root]),
        "must be a folder that only this app has, of letters, digits and ._- and outside of /home, "
        "/tmp, /var/lib and other folders that belong to the system or are hidden from the app",
        example=f"/srv/{name}",
    )


def _environment_checks(settings: Settings) -> Iterator[Check]:
    variables = environment_variables(settings)
    yield check(
        "app_env",
        settings["app_env"].lower() not in {"development", "dev", "debug"},
        "must not be a development environment, where a debugger runs code of any visitor",
        example="production",
    )
    yield check(
        "app_environment",
        all(str(value).lower() in OFF for key, value in variables if key in DEBUG)
        and all(value == "production" for key, value in variables if key == "FLASK_ENV"),
        f"must not enable debug mode ({', '.join(DEBUG)}), which runs code of any visitor, and "
        "FLASK_ENV must be production",
        example={"FLASK_DEBUG": "0"},
    )
    items = [*variables, *settings["app_build_environment"].items()]
    yield none_of(
        "app_environment",
        not_environment([{"key": key, "value": value} for key, value in items]),
        "and app_build_environment must have names of letters, digits and underscores, and values "
        "of one line; a key of several lines, or a list, belongs in a file (app_files)",
        example={"MAIL_SERVER": "localhost"},
    )


def _site_checks(settings: Settings) -> Iterator[Check]:
    prefix, health, domains = (settings[f"app_{k}"] for k in ("prefix", "health_path", "domains"))
    yield check(
        "app_prefix",
        re.fullmatch("(/[A-Za-z0-9._~-]+)*", prefix),
        "must be empty, or begin with a slash and end without one",
        example="/shop",
    )
    yield check(
        "app_health_path",
        re.fullmatch("/[!-~]*", health) and not set("?#") & set(health),
        "must be a URL path that begins with a slash, with characters outside of ASCII as %…",
        example="/healthz",
    )
    metrics = settings["app_metrics_path"]
    yield check(
        "app_metrics_path",
        not metrics or (re.fullmatch("(/[A-Za-z0-9._~-]+)+", metrics) and metrics != health),
        "must be a URL path that begins with a slash and is not app_health_path, or empty",
        example="/metrics",
    )
    yield check(
        "app_domains",
        dns_names(domains) == domains,
        "must be names as in a browser's requests, each once, without scheme, port, path or final "
        "dot, in lower case, and as xn--… for letters outside of ASCII",
        value=domains,
        example=dns_names(domains),
    )
    for variable, (least, most, unit) in RANGES.items():
        yield check(
            variable,
            least <= settings[variable] <= most,
            f"must be {least} to {most}{unit}",
            example={"app_https_port": 443}.get(variable, 16),
        )
    yield check(
        "request_timeout",
        settings["app_request_timeout"] >= 5,
        "must be 5 seconds or more, so that the timeouts derived from it have room",
        value=settings["app_request_timeout"],
        example=30,
    )
    yield check(
        "app_trusted_proxy_hops",
        not settings["app_proxy_fix"] or settings["app_trusted_proxy_hops"] >= 1,
        "must be 1 or more for app_proxy_fix to have an effect",
        example=1,
    )


def _process_checks(settings: Settings, hosts: list[str]) -> Iterator[Check]:
    processes = settings["app_processes"]
    names = [process["name"] for process in processes]
    yield none_of(
        "app_processes",
        [
            name
            for name in names
            if not re.fullmatch("[a-z][a-z0-9_-]{0,30}", name)
            or name in UNITS
            or names.count(name) > 1
        ],
        "must have names of lower-case letters, digits, underscores and dashes, each once, and not "
        f"those of other units of the app ({', '.join(UNITS)})",
        example=[WORKER | {"instances": 2}],
    )
    yield none_of(
        "app_processes",
        not_commands(processes),
        "must have a command of one line, in YAML after >- where it is long; use sh -c '…' for "
        "several commands",
        example=[WORKER],
    )
    server = _development_server(settings["app_wsgi"] or "")
    yield none_of(
        "app_processes",
        [each["command"] for each in processes if server.search(each["command"])],
        "must not run a development server, since Gunicorn serves the site",
        example=[WORKER],
    )
    for process in processes:
        memory = process["memory_limit"]
        for ok, limit in (
            (process["instances"] >= 0, "instances of 0 (declared, but stopped) or more"),
            (process["stop_timeout"] >= 1, "a stop_timeout of 1 second or more"),
            (
                process["watchdog"] == 0 or process["watchdog"] >= 10,
                "a watchdog of 10 seconds or more, or 0 for none",
            ),
            (
                not (process["watchdog"] and process["schedule"]),
                "no watchdog, since it has a schedule",
            ),
            (process["random_delay"] >= 0, "a random_delay of 0 seconds or more"),
            (memory == 0 or memory >= 16, "a memory_limit of 16 MiB or more, or 0 for no limit"),
            (
                not process["schedule"] or process["instances"] <= 1,
                "no more than 1 instance, since it has a schedule and runs do not overlap",
            ),
        ):
            reason = f"must have, for {process['name']}, {limit}"
            yield check("app_processes", ok, reason, example=[WORKER | {"instances": 1}])
    yield none_of(
        "app_processes",
        invalid_schedules(processes),
        "must have schedules in the format of systemd's OnCalendar, not that of cron",
        example=[NIGHTLY],
    )
    yield check(
        "app_singleton_host",
        settings["app_singleton_host"] in hosts,
        "must be a host of group app",
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


def _path_checks(settings: Settings, inventory_dir: str) -> Iterator[Check]:
    name, root = settings["app_name"], settings["app_root"]
    paths = app_paths(settings)
    template = {"template": "templates/local.py.j2", "dest": "shop/local.py"}
    static = [entry["folder"] for entry in settings["app_static"]]
    yield none_of(
        "app_shared_paths",
        outside_release(settings["app_shared_paths"] + static),
        "must be folders inside the release, as must the folders of app_static, and not its .venv",
        example=["uploads"],
    )
    instance = [path for path in [settings["app_instance_path"]] if path and path[0] != "/"]
    yield none_of(
        "app_shared_files",
        outside_release([*settings["app_shared_files"], *paths["generated"], *instance]),
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
    yield none_of(
        "app_shared_paths",
        [
            path
            for path in paths["shared"]
            if settings["app_shared_files"] and path.split("/")[0] == "files"
        ],
        "must not contain files, where app_shared_files are stored",
        example=["uploads"],
    )
    own = re.compile(r"/etc/[^/]*/(environment$|gunicorn[.]conf[.]py$|files(/|$))")
    yield none_of(
        "app_files",
        [
            dest
            for dest in paths["absolute_dests"]
            if not dest.startswith(f"/etc/{name}/") or own.match(dest)
        ],
        f"must have a dest inside the release, or an absolute one below /etc/{name} that role "
        "gunicorn does not write",
        example=[template],
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
        outside_release(path for path in settings["app_writable_paths"] if path[:1] != "/"),
        f"must be folders below {root}/shared, or absolute",
        example=["exports", "/var/spool/shop"],
    )
    yield none_of(
        "app_writable_paths",
        forbidden_paths(paths["writable"], root, name),
        "and app_instance_path must be folders that only the app uses, since it becomes their "
        f"owner: not those of the system (in /var/lib and the like the app has those named {name})"
        f", nor any of {root} outside of its shared/",
        example=["exports", "/var/spool/shop"],
    )
    plain = re.compile(r"(/[A-Za-z0-9._-]+)+/?")
    yield none_of(
        "app_readable_paths",
        [
            path
            for path in settings["app_readable_paths"]
            if not plain.fullmatch(path) or ".." in path.split("/") or hidden_paths([path])
        ],
        "must be absolute paths of letters, digits and ._- without .. and neither the whole file "
        "system nor in /home, /root or /run/user, which the sandbox always hides",
        example=["/srv/films"],
    )


def _connection_checks(settings: Settings) -> Iterable[Check]:
    for name in PASSWORDS:
        yield check(
            name,
            re.fullmatch(r"[A-Za-z0-9.,:_~-]*", settings[name] or ""),
            "must consist of letters, digits and .,:_~- since a URL has others as a % and two "
            "digits, which Alembic's configuration, for one, interprets",
        )
    yield check(
        "app_database_charset",
        re.fullmatch("[a-z0-9_]*", settings["app_database_charset"]),
        "must be a character set of MySQL, or empty",
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
        not_networks(item for item in settings["app_network"] if item not in KEYWORDS),
        "must contain internet, any, localhost, IP addresses or CIDRs; rules cannot match names",
        example=["internet", "10.0.0.7", "fd00:1::/64"],
    )


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"app_checks": app_checks}
