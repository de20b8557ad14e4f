"""The site, the default server and the validation of role nginx."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from helpers.templates import problems

APP = {
    "app_domains": ["shop.example.org"],
    "app_wsgi": "shop:app",
    "app_secret_key": "k3Yq8ZpW0vXr6TtB1nMc4JdL7sHf2GaU",
}
SITE = "etc/nginx/sites-enabled/site.conf.j2"
DEFAULT = "etc/nginx/sites-enabled/default.j2"


@pytest.fixture
def site(render):
    """Return a function that renders the site with the given variables."""

    def render_site(**variables):
        return render("nginx", SITE, **{"app_domains": ["shop.example.org"]} | variables)

    return render_site


def invalid(**variables):
    """Return the validation errors for the given variables."""
    return problems("app", "nginx", **APP | variables)


def locations(text):
    """Return the bodies of the main server's locations by their match."""
    server = text.partition("\n# Each request")[0]
    return dict(re.findall(r"(?ms)^    location (.+?) \{\n(.*?)^    \}$", server))


def test_proxy_headers_are_set_at_server_level_only(site):
    text = site(app_streaming_paths=["/events"], app_websocket_paths=["/ws/"])
    # A location with its own proxy_set_header inherits none of the server's.
    assert not any("proxy_set_header" in body for body in locations(text).values())
    assert len(re.findall(r"^    proxy_set_header ", text, re.MULTILINE)) > 20


def test_sites_have_no_common_names(site):
    def names(text):
        defined = re.findall(r'^(?:geo|map) (?:\S+|"[^"]*") \$(\w+) \{', text, re.MULTILINE)
        return {*defined, *re.findall(r"^(?:upstream|log_format) (\w+)", text, re.MULTILINE)}

    one, two = names(site(app_name="shop")), names(site(app_name="shop_two"))
    assert len(one) > 8
    assert one.isdisjoint(two)


def test_each_path_has_one_location_below_the_prefix(site):
    text = site(
        app_prefix="/shop", app_streaming_paths=["/events", "/"], app_websocket_paths=["/ws/", "/"]
    )
    found = locations(text)
    assert text.partition("\n# Each request")[0].count("location /shop/ {") == 1
    assert "proxy_pass http://app_shop/events;" in found["= /shop/events"]
    assert "$http_upgrade" not in found["= /shop/events"]
    assert "$http_upgrade" in found["/shop/ws/"]
    assert "proxy_buffering off" in found["/shop/"]


@pytest.mark.parametrize(
    ("groups", "here"), [(["edge"], False), (["edge", "app"], True), (["all"], True)]
)
def test_edge_host_without_the_app_proxies_static_files(site, groups, here):
    static = {"app_static": [{"url": "/static/", "folder": "static"}], "group_names": groups}
    assert ("^~ /static/" in locations(site(**static))) == here
    assert not invalid(**static)
    assert bool(invalid(app_internal=[{"url": "/f/", "folder": "f"}], group_names=groups)) != here


def test_default_server_depends_on_all_sites_of_the_host(render):
    line = "/etc/nginx/sites-enabled/blog.conf:# Features: https, ip_address"
    text = render("nginx", DEFAULT, app_https=False, __nginx_gathered={"stdout_lines": [line]})
    assert "ssl_certificate /etc/nginx/certificates/blog/current/fullchain.pem;" in text


@pytest.mark.parametrize(
    ("facts", "listens"),
    [
        ({}, True),
        ({"all_ipv6_addresses": ["fe80::1"]}, True),
        ({"all_ipv6_addresses": []}, False),
    ],
)
def test_host_without_ipv6_does_not_listen_on_ipv6(site, render, facts, listens):
    for text in (site(ansible_facts=facts), render("nginx", DEFAULT, ansible_facts=facts)):
        assert "listen 80" in text
        assert ("listen [::]:80" in text) == listens


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("app_domains", []),
        ("app_domains", ["shop.example.org; return 200"]),
        ("app_trusted_proxies", ["balancer.example.org"]),
        ("app_static", [{"url": "/static", "folder": "shop/static"}]),
        ("app_static", [{"url": "/", "folder": "shop/static"}]),
        ("app_static", [{"url": "/a/\n", "folder": "static"}]),
        ("app_static", [{"url": "/a/", "folder": "one"}, {"url": "/a/", "folder": "two"}]),
        ("app_static", [{"folder": "shop/static"}]),
        ("app_static", [{"url": "/a/", "pattern": "^/(a)$", "folder": "shop/static"}]),
        ("app_static", [{"url": "/a/", "folder": "shop; return 200"}]),
        ("app_static", [{"url": "/a/", "folder": "shop/$1"}]),
        ("app_static", [{"pattern": "/(robots.txt)$", "folder": "static"}]),
        ("app_static", [{"pattern": "^/(?:robots.txt)$", "folder": "static"}]),
        ("app_static", [{"pattern": '^/(robots.txt)"; return 200 "', "folder": "static"}]),
        ("app_static", [{"pattern": "^/(.*)$", "folder": "$1"}]),
        ("app_static", [{"pattern": "^/(.*)$", "folder": "static/../$1"}]),
        ("app_internal", [{"url": "/files/", "folder": "../releases"}]),
        ("app_internal", [{"url": "/files/", "folder": "/srv/shop/shared/uploads"}]),
        ("app_internal", [{"url": "/files/", "folder": "/"}]),
        ("app_streaming_paths", ["events"]),
        ("app_underscore_headers", ["api-key"]),
        ("app_underscore_headers", ["X_Forwarded_For"]),
        ("app_underscore_headers", ["True_Client_IP"]),
        ("app_limited_paths", [{"path": "login", "per_minute": 5}]),
        ("app_limited_paths", [{"path": "/login", "per_minute": 0}]),
        ("app_limited_paths", [{"path": "/login", "per_minute": 5, "methods": ["post"]}]),
        ("app_limited_paths", [{"path": "/login", "per_minute": 5, "burst": -1}]),
        ("nginx_listen", []),
        ("nginx_listen", ["80; return 200"]),
        ("nginx_listen_https", ["::1:443"]),
        ("nginx_upstreams", ["http://10.0.0.5:80"]),
        ("nginx_upstreams", ["unix:/srv/shop/web.sock;"]),
        ("nginx_limit_requests", -1),
        ("nginx_hsts_max_age", -1),
        ("nginx_hsts_preload", True),
        ("nginx_headers", {"X-Shop": "$host"}),
        ("nginx_headers", {"X Shop": "open"}),
        ("nginx_methods", []),
        ("nginx_methods", ["GET", "TRACE"]),
        ("nginx_maintenance_page", "/gone.html"),
        ("nginx_proxy_read_timeout", 0),
    ],
)
def test_invalid_value_is_rejected(variable, value):
    messages = invalid(**{variable: value})
    assert [message for message in messages if message.startswith(f"{variable} is ")]


@pytest.mark.parametrize("variable", ["app_streaming_paths", "app_websocket_paths"])
def test_url_is_served_or_passed_to_the_app(variable):
    (message,) = invalid(app_internal=[{"url": "/a/", "folder": "a"}], **{variable: ["/a/"]})
    assert message.startswith("app_static is [/a/]: and app_internal must have each URL path once")


def test_valid_values_are_accepted():
    assert not invalid()
    assert not invalid(
        app_domains=["127.0.0.1", "localhost", "[::1]", "*.example.org"],
        app_trusted_proxies=["10.0.0.0/8", "fd00::/8", "192.0.2.1"],
        app_static=[
            {"url": "/media/", "folder": "uploads/public/", "shared": True, "max_age": 60},
            {"pattern": "^/(favicon[.]ico|robots[.]txt)$", "folder": "shop/static"},
            {"pattern": "^/t/([a-z]+)/s/(.*)$", "folder": "themes/$1/$2.$1", "max_age": 60},
        ],
        app_internal=[
            {"url": "/files/", "folder": "uploads"},
            {"url": "/mnt/", "folder": "/mnt/a"},
        ],
        app_streaming_paths=["/"],
        app_websocket_paths=["/socket.io/", "/"],
        app_limited_paths=[{"path": "/", "methods": ["POST"], "per_minute": 60, "burst": 20}],
        app_underscore_headers=["api_key"],
        nginx_limit_requests=0,
        nginx_listen=["80", "*:80", "[::]:80 ipv6only=on", "shop.example.org:80 proxy_protocol"],
        nginx_upstreams=["unix:/srv/shop/web.sock weight=2 backup", "web_1:8000"],
        nginx_headers={"X-Frame-Options": "", "Reporting-Endpoints": None, "X-Shop": 'a "b" \\'},
        nginx_hsts_preload=True,
        nginx_hsts_subdomains=True,
    )


@pytest.mark.parametrize("status", [0, 1])
def test_site_is_validated_in_a_temporary_configuration(evaluate, tmp_path, status):
    for name in ("etc", "bin"):
        (tmp_path / name).mkdir()
    nginx = tmp_path / "bin/nginx"
    nginx.write_text(f'#!/bin/sh\ncat "$3"\nexit {status}\n')
    nginx.chmod(0o755)
    command = evaluate("nginx", "__nginx_validate").replace("/etc/nginx", f"{tmp_path}/etc")
    run = subprocess.run(
        shlex.split(command % "shop.conf"),
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == status
    assert run.stdout.endswith("include shop.conf; }\n")
    assert not list((tmp_path / "etc").iterdir())
