"""Headers, files, limits and the default server of role nginx."""

import re

import pytest

from nginx_site import (
    default_server,
    internal_locations,
    nginx_features,
    nginx_limits,
    other_sites,
    response_headers,
    served_folders,
    site_features,
    static_locations,
)

HTTPS = {
    "app_https": True,
    "app_certificate": "acme",
    "nginx_hsts_max_age": 63072000,
    "nginx_hsts_subdomains": False,
    "nginx_hsts_preload": False,
    "nginx_content_security_policy": "",
    "nginx_headers": {},
}


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ({}, "max-age=63072000"),
        ({"app_certificate": "selfsigned"}, None),
        ({"app_https": False}, None),
        ({"nginx_hsts_max_age": 0}, None),
        (
            {"nginx_hsts_subdomains": True, "nginx_hsts_preload": True},
            "max-age=63072000; includeSubDomains; preload",
        ),
    ],
)
def test_hsts_needs_a_trusted_certificate(settings, value):
    assert response_headers(HTTPS | settings).get("Strict-Transport-Security") == value


def test_headers_of_the_inventory_take_precedence():
    own = {"X-Frame-Options": "DENY", "Referrer-Policy": None, "X-Shop": 1}
    headers = response_headers(HTTPS | {"app_https": False, "nginx_headers": own})
    assert headers == {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "X-Shop": "1",
    }


@pytest.mark.parametrize(
    ("build", "http2_directive", "http3", "post_quantum"),
    [
        ("nginx/1.22.1\nbuilt with OpenSSL 3.0.17 (running with OpenSSL 3.0.19)", *[False] * 3),
        ("nginx/1.24.0 (Ubuntu)\nbuilt with OpenSSL 3.0.13", *[False] * 3),
        ("nginx/1.26.3\nbuilt with OpenSSL 3.5.7\n--with-http_v3_module", *[True] * 3),
        ("nginx/1.30.0\nbuilt with OpenSSL 3.0.2 (running with OpenSSL 3.10.0)", True, False, True),
    ],
)
def test_features_of_the_nginx_build(build, http2_directive, http3, post_quantum):
    assert nginx_features(build) == {
        "http2_directive": http2_directive,
        "http3": http3,
        "post_quantum": post_quantum,
    }


def test_pattern_selects_files_of_several_folders():
    themes = {"pattern": r"^/themes/(\w{2,})/static/(.+)$", "folder": "themes/$1/public/$2"}
    icons = {"pattern": r"^/(favicon\.ico)$", "folder": "static/", "max_age": 60}
    settings = {"app_root": "/srv/shop", "app_prefix": "/shop", "app_static": [themes, icons]}
    theme, icon = static_locations(settings)
    found = re.search(theme["pattern"], "/shop/themes/dark/static/a/b.css")
    assert found.groups() == ("dark", "a/b.css")
    assert theme["files"] == ["/current/themes/$1/public/$2", "/previous/themes/$1/public/$2"]
    assert (icon["files"][0], icon["max_age"]) == ("/current/static/$1", 60)
    for path in (
        "/themes/dark/static/a",
        *(f"/shop/themes/dark/static/{p}" for p in (".a", "../a")),
    ):
        assert not re.search(theme["pattern"], path)


FILES = {
    "app_root": "/srv/shop",
    "app_static": [
        {"url": "/static/", "folder": "static"},
        {"url": "/media/", "folder": "media/", "shared": True},
        {"pattern": "^/t/(.)/(.*)$", "folder": "thumbs/of/$1/$2", "shared": True},
    ],
    "app_internal": [
        {"url": "/a/", "folder": "media/private"},
        {"url": "/b/", "folder": "/srv/films/new/"},
        {"url": "/c/", "folder": "/srv/filmstock"},
    ],
}


def test_folders_outside_the_releases():
    shared = "/srv/shop/shared"
    assert served_folders(FILES, ["/srv/films/new"]) == {
        "readable": [
            *(f"{shared}/media", f"{shared}/thumbs/of", f"{shared}/media/private"),
            "/srv/films/new",
        ],
        "parents": [shared, f"{shared}/thumbs"],
        "external": ["/srv/filmstock"],
    }
    assert served_folders(FILES | {"app_static": [], "app_internal": []}, [])["parents"] == []


def test_links_are_trusted_only_above_folders_that_the_app_can_write():
    locations = internal_locations(FILES, ["/srv/films/new", "/srv/films"])
    assert [(location["folder"], location["trusted"]) for location in locations] == [
        ("/srv/shop/shared/media/private", "/srv/shop/shared"),
        ("/srv/films/new", "/srv/films"),
        ("/srv/filmstock", "/srv/filmstock"),
    ]


@pytest.mark.parametrize(
    ("connections", "paths", "queue"), [(20, [], 30), (20, ["/events"], 25), (1, [], 2)]
)
def test_queue_has_a_higher_limit(connections, paths, queue):
    settings = {
        "nginx_limit_connections": connections,
        "nginx_limit_uploads": 10,
        "nginx_upload_space": 2048,
        "nginx_proxy_read_timeout": 35,
        "nginx_proxy_send_timeout": 30,
        "app_header_size": 16,
        "app_upload_size": 500,
        "app_streaming_paths": paths,
        "app_websocket_paths": [],
    }
    assert nginx_limits(settings)["queue_connections"] == queue
    assert nginx_limits(settings)["all_uploads"] == 10
    assert nginx_limits(settings | {"app_upload_size": 100})["all_uploads"] == 20


def test_features_of_other_sites():
    lines = [
        "/etc/nginx/sites-enabled/shop.conf:# Features: https",
        "/etc/nginx/sites-enabled/blog.conf:# Features: https, ip_address",
    ]
    assert other_sites(lines, "shop") == {"blog": ["https", "ip_address"]}


def test_one_site_of_a_host_answers_health_checks():
    site = {"app_https": False, "app_domains": ["a.example"], "app_trusted_proxies": ["10.0.0.0/8"]}
    assert site_features(site, {"blog": ["https"]}) == ["health_checks"]
    assert site_features(site, {"blog": ["health_checks"]}) == []


@pytest.mark.parametrize("domain", ["203.0.113.7", "[2001:db8::1]"])
def test_site_with_an_ip_address(domain):
    site = {"app_https": True, "app_domains": ["a.example", domain], "app_trusted_proxies": []}
    assert site_features(site, {}) == ["https", "ip_address"]
    assert site_features(site | {"app_https": False}, {}) == []


@pytest.mark.parametrize(
    ("sites", "https", "certificate"),
    [
        ({"shop": []}, False, ""),
        ({"shop": [], "zoo": ["https"]}, True, ""),
        ({"zoo": ["https", "ip_address"], "blog": ["https", "ip_address"]}, True, "blog"),
    ],
)
def test_default_server_is_the_same_for_every_app(sites, https, certificate):
    assert default_server(sites) == {"https": https, "certificate": certificate}
