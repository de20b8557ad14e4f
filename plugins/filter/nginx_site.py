"""Values for the site of role nginx: headers, files, limits and the default server."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from posixpath import normpath
from typing import Any

Settings = Mapping[str, Any]

# Headers that frameworks, Gunicorn or middleware may trust. Clients must not be able to set them.
CLEARED_HEADERS = [
    *("CF-Connecting-IP", "Fastly-Client-IP", "Forwarded", "Proxy", "True-Client-IP"),
    *("X-Client-IP", "X-Cluster-Client-IP", "X-Forwarded", "X-Forwarded-By", "X-Forwarded-Method"),
    *("X-Forwarded-Path", "X-Forwarded-Protocol", "X-Forwarded-Scheme", "X-Forwarded-Server"),
    *("X-Forwarded-Ssl", "X-Forwarded-Uri", "X-Host", "X-Original-Forwarded-For"),
    *("X-Original-Host", "X-Original-Method", "X-Original-URI", "X-Original-URL"),
    *("X-ProxyUser-Ip", "X-Rewrite-URL", "X-Scheme", "X-Script-Name"),
]
# Excludes hidden files and files outside the directory.
NO_HIDDEN_FILES = r"(?!(?:.*/)?[.]|.*[.][.]/)"
# Seconds that a request may wait in the queue. A request can be queued twice.
QUEUE_SECONDS = 10


def response_headers(settings: Settings) -> dict[str, str]:
    """Return the response headers that nginx sets unless the app does."""
    hsts = ""
    if settings["app_https"] and settings["app_certificate"] != "selfsigned":
        hsts = _hsts(settings)
    headers = {
        "Strict-Transport-Security": hsts,
        "Content-Security-Policy": settings["nginx_content_security_policy"].strip(),
        "Referrer-Policy": "strict-origin-when-cross-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "SAMEORIGIN",
    }
    headers |= settings["nginx_headers"]
    return {name: str(value) for name, value in headers.items() if value not in ("", None)}


def _hsts(settings: Settings) -> str:
    max_age = int(settings["nginx_hsts_max_age"])
    options = ["includeSubDomains"] if settings["nginx_hsts_subdomains"] else []
    options += ["preload"] if settings["nginx_hsts_preload"] else []
    return "; ".join([f"max-age={max_age}", *options]) if max_age else ""


def nginx_features(build: str) -> dict[str, bool]:
    """Return the features of nginx from its build options, the output of `nginx -V`.

    The directive `http2` needs nginx 1.25.1, and the post-quantum key exchange OpenSSL 3.5.
    """
    return {
        "http2_directive": _version(r"nginx/([\d.]+)", build) >= [1, 25, 1],
        "http3": "--with-http_v3_module" in build,
        "post_quantum": _version(r"with OpenSSL ([\d.]+)", build) >= [3, 5],
    }


def _version(pattern: str, text: str) -> list[int]:
    """Return the last version in a text: OpenSSL's runtime version follows its build version."""
    found = re.findall(pattern, text)
    return [int(part) for part in found[-1].split(".") if part] if found else []


def static_locations(settings: Settings) -> list[dict[str, Any]]:
    """Return a location for each entry of app_static.

    Keys: `url` (empty for a pattern), `pattern` of the URL paths, `root`, `files` (below `root`, in
    the order in which nginx tries them) and `max_age` (None: depends on the URL).
    """
    prefix, root = re.escape(settings["app_prefix"]), settings["app_root"]
    return [_static_location(entry, prefix, root) for entry in settings["app_static"]]


def _static_location(entry: Mapping[str, Any], prefix: str, root: str) -> dict[str, Any]:
    folder, shared = entry["folder"], entry.get("shared", False)
    path = f"^{prefix}"
    if "url" in entry:
        path += f"{re.escape(entry['url'])}{NO_HIDDEN_FILES}(.+)$"
    else:
        path += f"{NO_HIDDEN_FILES}{entry['pattern'][1:]}"
    file = folder if "$" in folder else f"{folder.rstrip('/')}/$1"
    return {
        "url": entry.get("url", ""),
        "pattern": path,
        "root": f"{root}/shared" if shared else root,
        # A page that was opened before a deploy may request files of the previous release.
        "files": [f"/{file}"] if shared else [f"/current/{file}", f"/previous/{file}"],
        "max_age": entry.get("max_age", 300 if shared else None),
    }


def internal_locations(settings: Settings, writable: Iterable[str]) -> list[dict[str, str]]:
    """Return a location for each entry of app_internal: `url`, `folder` and `trusted`.

    `trusted` is the part of the folder's path in which the app cannot create links. `writable` are
    the app's folders outside its root.
    """
    shared = f"{settings['app_root']}/shared"
    locations = []
    for entry in settings["app_internal"]:
        folder = normpath(f"{shared}/{entry['folder']}")
        trusted = shared
        if entry["folder"].startswith("/"):
            folder = normpath(entry["folder"])
            above = [own for own in sorted(writable) if f"{folder}/".startswith(f"{own}/")]
            trusted = above[0] if above else folder
        locations.append({"url": entry["url"], "folder": folder, "trusted": trusted})
    return locations


def served_folders(settings: Settings, writable: Iterable[str]) -> dict[str, list[str]]:
    """Return the folders outside the releases that nginx serves.

    `readable` are folders of the app, `parents` the folders above them (the shared folder is the
    first), and `external` are all others. `writable` has the app's folders outside its root.
    """
    root = f"{settings['app_root']}/shared"
    shared = [entry["folder"] for entry in settings["app_static"] if entry.get("shared")]
    static = [normpath(f"{root}/{re.sub(r'/[^/]*[$].*', '', folder)}") for folder in shared]
    internal = [location["folder"] for location in internal_locations(settings, writable)]
    folders = dict.fromkeys([*static, *internal])
    below = [folder for folder in folders if folder.startswith(f"{root}/")]
    readable = [folder for folder in folders if folder in [*below, *writable]]
    above = {str(parent) for folder in below for parent in PurePosixPath(folder).parents}
    return {
        "readable": readable,
        "parents": sorted(
            path for path in above - {*readable} if f"{path}/".startswith(f"{root}/")
        ),
        "external": [folder for folder in folders if folder not in readable],
    }


def nginx_limits(settings: Settings) -> dict[str, int]:
    """Return the limits and timeouts that depend on several settings.

    `queue_connections` is the limit for requests from the queue. It is above the client's limit,
    since the queue forwards its first requests at once: by half, or by a quarter if streams occupy
    some of the workers.
    """
    connections = int(settings["nginx_limit_connections"])
    streams = settings["app_streaming_paths"] + settings["app_websocket_paths"]
    space = int(settings["nginx_upload_space"]) // int(settings["app_upload_size"])
    return {
        "queue_connections": connections + max(connections // (4 if streams else 2), 1),
        "queue_header_size": int(settings["app_header_size"]) + 1,
        "queue_read_timeout": int(settings["nginx_proxy_read_timeout"]) + 2 * QUEUE_SECONDS,
        "queue_send_timeout": int(settings["nginx_proxy_send_timeout"]) + 2 * QUEUE_SECONDS,
        "all_uploads": max(space, int(settings["nginx_limit_uploads"])),
    }


def nginx_site(settings: Settings, writable: Iterable[str]) -> dict[str, Any]:
    """Return the values for the template of the site."""
    return {
        "cleared_headers": CLEARED_HEADERS,
        "headers": response_headers(settings),
        "static": static_locations(settings),
        "internal": internal_locations(settings, writable),
        "limits": nginx_limits(settings),
    }


def other_sites(lines: Iterable[str], app: str) -> dict[str, list[str]]:
    """Return the features of the sites of a host by app, without those of `app`.

    Lines are those of `grep -H '^# Features:'`, such as `/path/blog.conf:# Features: https`.
    """
    sites = {}
    for line in lines:
        file, _, features = line.partition(":# Features: ")
        sites[PurePosixPath(file).stem] = features.split(", ")
    sites.pop(app, None)
    return sites


def site_features(settings: Settings, others: Mapping[str, list[str]]) -> list[str]:
    """Return the features of a site that the default server or another site depends on.

    One site of a host answers health checks by IP address.
    """
    taken = any("health_checks" in features for features in others.values())
    features = {
        "https": settings["app_https"],
        "ip_address": settings["app_https"] and any(map(_is_address, settings["app_domains"])),
        "health_checks": settings["app_trusted_proxies"] and not taken,
    }
    return [name for name, enabled in features.items() if enabled]


def _is_address(domain: str) -> bool:
    try:
        return bool(ipaddress.ip_address(domain.strip("[]")))
    except ValueError:
        return False


def default_server(sites: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return whether the default server needs HTTPS, and the app whose certificate it uses.

    Browsers send no name for an IP address, so the certificate is that of a site with an address.
    """
    named = sorted(app for app, features in sites.items() if "ip_address" in features)
    return {
        "https": any("https" in features for features in sites.values()),
        "certificate": named[0] if named else "",
    }


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "default_server": default_server,
            "nginx_features": nginx_features,
            "nginx_site": nginx_site,
            "other_sites": other_sites,
            "served_folders": served_folders,
            "site_features": site_features,
        }
