"""Checks of the settings of role nginx, for filter `problems`. nginx validates other settings."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))

from domains import dns_names
from networks import not_networks
from nginx_site import CLEARED_HEADERS
from problems import Check, check, none_of

Settings = Mapping[str, Any]

LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
DOMAIN = rf"(\*\.)?{LABEL}(\.{LABEL})*|\[[0-9a-f:.]+\]"
# `listen` or `server` of nginx: a socket, or an address and port, and parameters.
PARAMETERS = r'( +[a-z][a-z0-9_]*(=[^\s;{}"$#\\]+)?)*'
ADDRESS = (
    r'(unix:/[^\s;{}"$#\\]+|(\[[0-9A-Fa-f:.]+\]|\*|[A-Za-z0-9._-]+)(:[0-9]{1,5})?)' + PARAMETERS
)
METHOD = "[A-Z]+"
URL_PATH = r'/[^\s;{}"$#\\]*'
FOLDER_URL = r'/([^/\s;{}"$#\\]+/)+'
# Headers that nginx sets or removes, and headers that Gunicorn interprets as parts of the URL.
RESERVED_HEADERS = {name.lower() for name in CLEARED_HEADERS} | {
    *("connection", "host", "path-info", "script-name", "upgrade", "x-forwarded-for"),
    *("x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-proto"),
    *("x-real-ip", "x-request-id"),
}


def nginx_checks(settings: Settings) -> list[Check]:
    """Return the checks of role nginx. Settings have the types in the argument specs."""
    return [*_address_checks(settings), *_http_checks(settings), *_file_checks(settings)]


def _unlike(pattern: str, values: Iterable[str]) -> list[str]:
    return [value for value in values if not re.fullmatch(pattern, value)]


def _address_checks(settings: Settings) -> Iterable[Check]:
    domains = settings["app_domains"]
    yield check(
        "app_domains",
        domains and not _unlike(DOMAIN, dns_names(domains)),
        "must be one or more names of letters, digits and dashes, or addresses",
        example=["shop.example.org", "*.shop.example.org"],
    )
    for name, address in (("listen", "80"), ("listen_https", "443"), ("upstreams", "10.0.0.5:80")):
        addresses = settings[f"nginx_{name}"]
        valid = addresses and not _unlike(ADDRESS, addresses)
        reason = "must be one or more of <address>:<port> or unix:<path>, with parameters of nginx"
        yield check(f"nginx_{name}", valid, reason, example=[address])
    for name in ("app_trusted_proxies", "nginx_limit_exempt", "nginx_maintenance_allow"):
        reason = "must be addresses or CIDRs; nginx cannot match names"
        yield none_of(name, not_networks(settings[name]), reason, example=["10.0.0.0/8"])
    for name, value in settings.items():
        if re.fullmatch("nginx_.*_timeout", name):
            yield check(name, value >= 1, "must be 1 second or more", example=30)
        elif name.startswith("nginx_") and isinstance(value, int):
            example = 31536000 if name.endswith("_max_age") else 50
            yield check(name, value >= 0, "must not be negative", example=example)


def _http_checks(settings: Settings) -> Iterable[Check]:
    yield check(
        "nginx_hsts_preload",
        not settings["nginx_hsts_preload"]
        or (settings["nginx_hsts_subdomains"] and settings["nginx_hsts_max_age"] >= 31536000),
        "needs nginx_hsts_subdomains and an nginx_hsts_max_age of a year or more",
        example=False,
    )
    headers = settings["nginx_headers"]
    values = [str(value) for value in headers.values()]
    policy = settings["nginx_content_security_policy"].strip()
    yield check(
        "nginx_headers",
        not _unlike("[A-Za-z][A-Za-z0-9-]*", headers) and not _unlike("[^$\n]*", [*values, policy]),
        "and nginx_content_security_policy must be headers of one line each, without $",
        example={"X-Frame-Options": "DENY", "Referrer-Policy": ""},
    )
    methods = settings["nginx_methods"]
    yield check(
        "nginx_methods",
        methods and not _unlike(METHOD, methods) and "TRACE" not in methods,
        "must be methods in capital letters, without TRACE",
        example=["GET", "HEAD", "POST"],
    )
    yield none_of(
        "app_underscore_headers",
        [
            name
            for name in settings["app_underscore_headers"]
            if not re.fullmatch(r"(?=.*_)[A-Za-z0-9_-]+", name)
            or name.replace("_", "-").lower() in RESERVED_HEADERS
        ],
        "must be names with an underscore; nginx must not set or remove the name with dashes",
        example=["api_key"],
    )
    yield none_of(
        "app_limited_paths",
        [
            limit
            for limit in settings["app_limited_paths"]
            if _unlike(URL_PATH, [limit["path"]])
            or _unlike(METHOD, limit.get("methods", []))
            or limit["per_minute"] < 1
            or limit.get("burst", 0) < 0
        ],
        "must have URL paths that begin with a slash, methods in capitals, per_minute above 0 and "
        "a burst that is not negative",
        example=[{"path": "/login", "methods": ["POST"], "per_minute": 10}],
    )
    yield none_of(
        "app_streaming_paths",
        _unlike(URL_PATH, settings["app_streaming_paths"] + settings["app_websocket_paths"]),
        "and app_websocket_paths must be URL paths that begin with a slash",
        example=["/events", "/socket.io/"],
    )
    page = settings["nginx_maintenance_page"]
    yield check(
        "nginx_maintenance_page",
        not page or Path(page).is_file(),
        "must be an HTML file on the controller",
        example='"{{ inventory_dir }}/maintenance.html"',
    )


def _file_checks(settings: Settings) -> Iterable[Check]:
    static, internal, root = (settings[f"app_{key}"] for key in ("static", "internal", "root"))
    yield none_of(
        "app_static",
        [entry for entry in static if ("url" in entry) == ("pattern" in entry)],
        "must have in each entry either a url or a pattern",
        example=[{"url": "/static/", "folder": "shop/static"}],
    )
    urls = [entry["url"] for entry in [*static, *internal] if "url" in entry]
    yield none_of(
        "app_static",
        _unlike(FOLDER_URL, urls),
        "and app_internal must have URL paths that begin and end with a slash",
        example=[{"url": "/static/", "folder": "shop/static"}],
    )
    proxied = settings["app_streaming_paths"] + settings["app_websocket_paths"]
    yield none_of(
        "app_static",
        sorted({url for url in urls if urls.count(url) > 1 or url in proxied}),
        "and app_internal must have each URL path once, and none of app_streaming_paths or "
        "app_websocket_paths",
        example=[{"url": "/static/", "folder": "shop/static"}],
    )
    patterns = [entry["pattern"] for entry in static if "pattern" in entry]
    yield none_of(
        "app_static",
        _unlike(r'\^/[^"\n]*\((?!\?)[^"\n]*', patterns),
        "must have patterns that begin with ^/ and have a group for the file below the folder",
        example=[{"pattern": "^/(favicon[.]ico|robots[.]txt)$", "folder": "shop/static"}],
    )
    yield none_of(
        "app_static",
        [entry["folder"] for entry in static if not _is_folder(_without_groups(entry))],
        "must have folders inside the release, or below shared/ with `shared`, of plain characters",
        example=[{"url": "/media/", "folder": "uploads", "shared": True}],
    )
    yield none_of(
        "app_internal",
        [
            entry["folder"]
            for entry in internal
            if not _is_folder(entry["folder"].removeprefix("/"))
            or f"{entry['folder']}/".startswith(f"{root}/")
        ],
        f"must have folders below shared/ (uploads is {root}/shared/uploads), or absolute ones "
        "elsewhere",
        example=[{"url": "/protected/", "folder": "uploads"}],
    )
    yield check(
        "app_internal",
        settings["nginx_serves_files"]
        or not [*internal, *(entry for entry in static if entry.get("shared"))],
        "and shared folders of app_static need nginx on the app's own host",
        example=[],
    )


def _without_groups(entry: Mapping[str, Any]) -> str:
    """Return the folder of a static entry, without the groups of its pattern."""
    first, *others = entry["folder"].split("/")
    if "pattern" in entry:
        others = [re.sub(r"\$\d", "x", part) for part in others]
    return "/".join([first, *others])


def _is_folder(path: str) -> bool:
    """Return whether a relative path stays inside its parent and needs no quotes in nginx."""
    return bool(re.fullmatch(r'[^/\s;{}"$\\][^\s;{}"$\\]*', path)) and ".." not in path.split("/")


class FilterModule:
    """Filter for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"nginx_checks": nginx_checks}
