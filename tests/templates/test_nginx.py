"""The site, the default server and the validation of role nginx."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shlex
import subprocess

import pytest

SITE = "etc/nginx/sites-enabled/site.conf.j2"
DEFAULT = "etc/nginx/sites-enabled/default.j2"


@pytest.fixture
def site(render):
    """Return a function that renders the site with the given variables."""

    def of(**variables):
        return render("nginx", SITE, **{"app_domains": ["shop.example.org"]} | variables)

    return of


@pytest.fixture
def refused(evaluate):
    """Return a function that returns the validation errors for the given variables."""

    def about(**variables):
        known = {"app_domains": ["shop.example.org"]} | variables
        return "\n".join(evaluate("nginx", "__nginx_problems", **known))

    return about


def locations(text):
    """Return the bodies of the site's locations by their match."""
    visited = text.partition("\n# Each request")[0]
    return dict(re.findall(r"(?ms)^    location (.+?) \{\n(.*?)^    \}$", visited))


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


@pytest.mark.parametrize(("prefix", "passed"), [("", ""), ("/shop", "/")])
def test_app_is_mounted_under_the_prefix(site, prefix, passed):
    found = locations(site(app_prefix=prefix))
    assert f"proxy_pass http://app_shop{passed};" in found[f"{prefix}/"]
    assert ("return 404" in found["/"]) == bool(prefix)


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


def served(text):
    """Return the bodies of the regular expression locations by their pattern."""
    found = re.findall(r'(?ms)^ +location ~ "(.+?)" \{\n(.*?)^ +\}$', text)
    return {pattern.replace("\\\\", "\\"): body for pattern, body in found}


def tried(text, path):
    """Return the files that nginx would try for a path. The first matching pattern counts."""
    for pattern, body in served(text).items():
        if match := re.search(pattern, path):
            root = re.search(r"root (\S+);", body).group(1)
            files = re.findall(r'"(/[^"]+)"', re.search(r"try_files (.*);", body).group(1))
            return [root + re.sub(r"\$(\d)", lambda n: match[int(n[1])], name) for name in files]
    return []


@pytest.mark.parametrize("folder", ["shop/static", "shop/static/"])
def test_static_file_comes_from_the_active_or_previous_release(site, folder):
    text = site(app_prefix="/shop", app_static=[{"url": "/static/", "folder": folder}])
    assert "return 404;" in locations(text)["^~ /shop/static/"]
    assert tried(text, "/shop/static/js/page.js") == [
        "/srv/shop/current/shop/static/js/page.js",
        "/srv/shop/previous/shop/static/js/page.js",
    ]
    for path in (".hidden", ".git/config", "js/.hidden", "../beside.txt", "x../beside.txt", ""):
        assert not tried(text, f"/shop/static/{path}")


def test_pattern_selects_files_of_a_directory(site):
    text = site(
        app_prefix="/shop",
        app_static=[
            {"pattern": r"^/(robots\.txt|favicon\.ico)$", "folder": "shop/static", "max_age": 60},
            {"pattern": r"^/themes/(\w{2,})/static/(.+)$", "folder": "themes/$1/public/$2"},
            {"pattern": "^/open(.*)$", "folder": "open"},
        ],
    )
    assert tried(text, "/shop/robots.txt")[0] == "/srv/shop/current/shop/static/robots.txt"
    assert tried(text, "/shop/themes/dark/static/a/b.css")[0].endswith("themes/dark/public/a/b.css")
    assert 'Cache-Control "public, max-age=60";' in text
    for path in ("/robots.txt", "/shop/robotsxtxt", "/shop/open../beside", "/shop/open/.hidden"):
        assert not tried(text, path)


def test_shared_directory_has_a_short_max_age(site):
    text = site(app_static=[{"url": "/media/", "folder": "uploads", "shared": True}])
    assert tried(text, "/media/a.png") == ["/srv/shop/shared/uploads/a.png"]
    (body,) = served(text).values()
    assert 'Cache-Control "public, max-age=300";' in body
    assert "nosniff" in text


@pytest.mark.parametrize(
    ("folder", "trusted"),
    [
        ("uploads/private", "/srv/shop/shared"),
        ("/srv/films", "/srv/films"),
        ("/srv/films/new/", "/srv/films"),
        ("/srv/filmstock", "/srv/filmstock"),
        ("/mnt/others", "/mnt/others"),
    ],
)
def test_links_are_restricted_in_directories_that_the_app_can_write(site, folder, trusted):
    text = site(
        app_internal=[{"url": "/files/", "folder": folder}],
        app_writable_paths=["/srv/films/new", "/srv/films"],
    )
    body = locations(text)["^~ /files/"]
    assert f"disable_symlinks if_not_owner from={trusted};" in body


def test_internal_directory_needs_x_accel_redirect(site):
    folders = [{"url": "/files/", "folder": "uploads/"}, {"url": "/big/", "folder": "/mnt/big"}]
    found = locations(site(app_prefix="/shop", app_internal=folders))
    assert "internal;" in found["^~ /files/"]
    assert 'alias "/srv/shop/shared/uploads/";' in found["^~ /files/"]
    assert 'alias "/mnt/big/";' in found["^~ /big/"]


@pytest.mark.parametrize(
    ("groups", "here"), [(["edge"], False), (["edge", "app"], True), (["all"], True)]
)
def test_edge_host_without_the_app_proxies_static_files(site, refused, groups, here):
    static = {"app_static": [{"url": "/static/", "folder": "static"}], "group_names": groups}
    assert bool(tried(site(**static), "/static/a.js")) == here
    assert not refused(**static)
    assert bool(refused(app_internal=[{"url": "/f/", "folder": "f"}], group_names=groups)) != here


def test_directories_that_nginx_reads_and_their_parents(evaluate):
    variables = {
        "app_static": [
            {"url": "/static/", "folder": "static"},
            {"url": "/media/", "folder": "media/", "shared": True},
            {"pattern": "^/t/(.)/(.*)$", "folder": "thumbs/of/$1/$2", "shared": True},
        ],
        "app_internal": [
            {"url": "/a/", "folder": "media/private"},
            {"url": "/b/", "folder": "/mnt/big/"},
            {"url": "/c/", "folder": "/mnt/others"},
        ],
        "app_writable_paths": ["/mnt/big"],
    }
    known = [evaluate("nginx", f"__nginx_{name}", **variables) for name in ("reads", "passes")]
    shared = "/srv/shop/shared"
    assert known[0] == [
        *(f"{shared}/{folder}" for folder in ("media", "thumbs/of", "media/private")),
        "/mnt/big",
    ]
    assert known[1] == [shared, f"{shared}/thumbs"]
    assert evaluate("nginx", "__nginx_elsewhere", **variables) == ["/mnt/others"]
    variables = {"app_internal": [{"url": "/files/", "folder": "uploads"}]}
    assert evaluate("nginx", "__nginx_passes", **variables) == [shared]
    assert evaluate("nginx", "__nginx_passes") == []


def test_413_page_names_the_limit(site):
    found = locations(site(app_upload_size=25))
    assert "up to 25 MiB" in found["@too_large"]
    assert "return 413 " in found["@too_large"]


def test_policy_of_error_pages_allows_their_style(evaluate):
    style, policy = evaluate("nginx", "[__nginx_page_style, __nginx_page_policy]")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy


def test_locations_repeat_all_headers_or_none(site):
    text = site(
        app_static=[{"url": "/static/", "folder": "s"}, {"pattern": "^/(a)$", "folder": "s"}],
        app_internal=[{"url": "/files/", "folder": "uploads"}],
        nginx_headers={"X-Shop": "open", "Referrer-Policy": ""},
    )
    blocks = re.findall(r"(?ms)^( +)location [^\n]+ \{\n(.*?)^\1\}$", text)
    own = [body for _, body in blocks if "add_header" in body]
    assert len(own) > 5
    for body in own:
        for name in ("Content-Security-Policy", "X-Frame-Options", "X-Shop"):
            assert f"add_header {name} " in body
    assert "Referrer-Policy" not in text


@pytest.mark.parametrize(
    ("certificate", "more", "told"),
    [
        ("selfsigned", {}, None),
        ("acme", {}, "max-age=63072000"),
        ("provided", {"nginx_hsts_max_age": 0}, None),
        ("acme", {"app_https": False}, None),
        (
            "acme",
            {"nginx_hsts_subdomains": True, "nginx_hsts_preload": True},
            "max-age=63072000; includeSubDomains; preload",
        ),
    ],
)
def test_hsts_needs_a_trusted_certificate(site, certificate, more, told):
    found = re.search(r'^    "" "(max-age.*)";$', site(app_certificate=certificate, **more), re.M)
    assert (found and found.group(1)) == told


BUILDS = {
    "bookworm": "nginx/1.22.1\nbuilt with OpenSSL 3.0.17 (running with OpenSSL 3.0.19)",
    "noble": "nginx/1.24.0 (Ubuntu)\nbuilt with OpenSSL 3.0.13",
    "trixie": "nginx/1.26.3\nbuilt with OpenSSL 3.5.7\n--with-http_v3_module",
}


@pytest.mark.parametrize("release", BUILDS)
def test_features_follow_the_nginx_build_options(site, render, release):
    known = {"__nginx_build": {"stderr": BUILDS[release]}}
    for text in (site(**known), render("nginx", DEFAULT, **known)):
        new = release == "trixie"
        assert ("http2 on;" in text) == new
        assert (" ssl http2" in text) != new
        assert ("listen 443 quic" in text) == new
        assert ("?X25519MLKEM768:" in text) == new
    assert ("Alt-Svc" in site(**known)) == new
    assert "Alt-Svc" not in site(nginx_http3=False, **known)


def test_without_https_the_site_listens_on_http_only(site, render):
    text = site(app_https=False)
    assert "443 ssl" not in text + render("nginx", DEFAULT, app_https=False)
    assert "return 308 https" not in text
    assert text.count("\nserver {\n    listen 80;") == 1


@pytest.mark.parametrize(
    ("own", "others", "shown"),
    [
        ({}, [], None),
        ({"app_domains": ["203.0.113.7"]}, [], "shop"),
        ({"app_domains": ["[2001:db8::1]"]}, ["blog"], "blog"),
        ({"app_domains": ["a.example"], "app_https": False}, ["zoo"], "zoo"),
        ({"app_domains": ["203.0.113.7"], "__nginx_present": False}, [], None),
    ],
)
def test_default_server_uses_the_same_certificate_from_every_app(render, own, others, shown):
    said = "/etc/nginx/sites-enabled/{}.conf:# Answers https, and who names an address."
    known = {"__nginx_answering": {"stdout_lines": [said.format(name) for name in others]}, **own}
    text = render("nginx", DEFAULT, **known)
    certificate = re.search(r"ssl_certificate /etc/nginx/certificates/(.+)/current", text)
    assert (certificate and certificate.group(1)) == shown


def test_one_site_of_a_host_answers_health_checks_by_ip_address(site):
    mark = "# Answers health checks by address."
    told = {
        name: {"stdout_lines": [f"/etc/nginx/sites-enabled/{name}.conf:{mark}"]}
        for name in ("shop", "blog")
    }
    behind = {"app_trusted_proxies": ["10.0.0.0/8"]}
    assert mark not in site()
    assert mark in site(**behind).splitlines()
    assert mark in site(**behind, __nginx_answering=told["shop"])
    assert mark not in site(**behind, __nginx_answering=told["blog"])


def test_timeouts_come_from_the_plan_and_upstreams_from_the_inventory(site):
    hosts = ["10.0.0.5:8000", "10.0.0.6:8000"]
    text = site(plan={"nginx_proxy_read_timeout": 65}, nginx_upstreams=hosts)
    assert "proxy_read_timeout 65s;" in text
    assert "server 10.0.0.5:8000;\n    server 10.0.0.6:8000;" in text


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


def test_forwarded_host_must_be_one_of_app_domains(site):
    text = site(app_domains=["shop.example.org", "*.example.net"])
    pattern = re.search(r'"~\*(\^1 .*)" \$1;', text).group(1)
    ours = ["shop.example.org", "a.example.net", "shop.example.org:8443"]
    others = ["shopxexample.org", "evil.example", "a.example.net.evil", "shop.example.org, evil"]
    taken = [name for name in ours + others if re.match(pattern, f"1 {name}", re.IGNORECASE)]
    assert taken == ours
    assert not re.match(pattern, "0 shop.example.org")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("app_domains", []),
        ("app_domains", ["shop.example.org; return 200"]),
        ("app_trusted_proxies", ["balancer.example.org"]),
        ("app_static", [{"url": "/static", "folder": "shop/static"}]),
        ("app_static", [{"url": "/", "folder": "shop/static"}]),
        ("app_static", [{"folder": "shop/static"}]),
        ("app_static", [{"url": "/a/", "pattern": "^/(a)$", "folder": "shop/static"}]),
        ("app_static", [{"url": "/a/", "folder": "one"}, {"url": "/a/", "folder": "two"}]),
        ("app_static", [{"url": "/a/", "folder": "/etc"}]),
        ("app_static", [{"url": "/a/", "folder": "shop/../../x"}]),
        ("app_static", [{"url": "/a/", "folder": "shop; return 200"}]),
        ("app_static", [{"url": "/a/", "folder": "shop/$1"}]),
        ("app_static", [{"pattern": "/(robots.txt)$", "folder": "static"}]),
        ("app_static", [{"pattern": "^/robots.txt$", "folder": "static"}]),
        ("app_static", [{"pattern": "^/(?:robots.txt)$", "folder": "static"}]),
        ("app_static", [{"pattern": '^/(robots.txt)"; return 200 "', "folder": "static"}]),
        ("app_static", [{"pattern": "^/(.*)$", "folder": "$1"}]),
        ("app_static", [{"pattern": "^/(.*)$", "folder": "static/../$1"}]),
        ("app_internal", [{"url": "/files/", "folder": "../releases"}]),
        ("app_internal", [{"url": "/files/", "folder": "/srv/shop/shared/uploads"}]),
        ("app_internal", [{"url": "/files/", "folder": "/"}]),
        ("app_streaming_paths", ["events"]),
        ("app_streaming_paths", ['/a"b']),
        ("app_streaming_paths", ["/a#b"]),
        ("app_static", [{"url": "/a/\n", "folder": "static"}]),
        ("app_underscore_headers", ["api-key"]),
        ("app_underscore_headers", ["X_Forwarded_For"]),
        ("app_underscore_headers", ["SCRIPT_NAME"]),
        ("nginx_listen", []),
        ("nginx_listen", ["80; return 200"]),
        ("nginx_listen_https", []),
        ("nginx_tls_profile", "old"),
        ("nginx_hsts_preload", True),
        ("nginx_headers", {"X-Shop": 'open"; return 200 "'}),
        ("nginx_headers", {"X-Shop": "$host"}),
        ("nginx_headers", {"X Shop": "open"}),
        ("nginx_methods", []),
        ("nginx_methods", ["GET", "TRACE"]),
        ("nginx_maintenance_page", "/gone.html"),
        ("nginx_limit_exempt", ["monitor.example.org"]),
        ("nginx_limit_requests", -1),
        ("app_limited_paths", [{"path": "login", "per_minute": 5}]),
        ("app_limited_paths", [{"path": "/login", "per_minute": 0}]),
        ("app_limited_paths", [{"path": "/login", "per_minute": 5, "burst": "5; x"}]),
        ("app_limited_paths", [{"path": "/login", "per_minute": 5, "methods": ["post"]}]),
        ("nginx_upstreams", []),
        ("nginx_proxy_read_timeout", 0),
    ],
)
def test_invalid_value_is_rejected(refused, variable, value):
    assert refused(**{variable: value}).startswith(f"{variable} is ")


def test_concurrent_validations_use_separate_files(evaluate, tmp_path):
    for name in ("etc", "bin", "seen"):
        (tmp_path / name).mkdir()
    nginx = tmp_path / "bin/nginx"
    nginx.write_text(
        """#!/bin/sh
cd "${0%/*}/../seen" && cp "$3" . || exit
for try in $(seq 100); do
    [ "$(ls | wc -l)" = 2 ] && exit "$ANSWER"
    sleep 0.05
done
exit 9
"""
    )
    nginx.chmod(0o755)
    command = evaluate("nginx", "__nginx_validate").replace("/etc/nginx", f"{tmp_path}/etc")
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    tests = [
        subprocess.Popen(shlex.split(command % site), env={"PATH": path, "ANSWER": answer})
        for site, answer in (("one.conf", "0"), ("two.conf", "1"))
    ]
    assert [test.wait() for test in tests] == [0, 1]
    texts = sorted(file.read_text().split("include ")[-1] for file in (tmp_path / "seen").iterdir())
    assert texts == ["one.conf; }\n", "two.conf; }\n"]
    assert not list((tmp_path / "etc").iterdir())


def test_valid_values_are_accepted(refused):
    assert not refused()
    assert not refused(
        app_domains=["127.0.0.1", "localhost", "[::1]", "*.example.org"],
        app_trusted_proxies=["10.0.0.0/8", "fd00::/8", "192.0.2.1"],
        app_static=[
            {"url": "/static/", "folder": "shop/static"},
            {"url": "/.well-known/", "folder": ".venv/lib/python3.13/site-packages/x"},
            {"url": "/media/", "folder": "uploads/public/", "shared": True, "max_age": 60},
            {"pattern": "^/(favicon[.]ico|robots[.]txt)$", "folder": "shop/static"},
            {"pattern": "^/t/([a-z]+)/s/(.*)$", "folder": "themes/$1/$2.$1", "max_age": 60},
        ],
        app_internal=[
            {"url": "/files/", "folder": "uploads"},
            {"url": "/mnt/", "folder": "/mnt/a"},
        ],
        app_streaming_paths=["/events"],
        app_websocket_paths=["/socket.io/", "/"],
        app_limited_paths=[{"path": "/", "methods": ["POST"], "per_minute": 60, "burst": 20}],
        nginx_headers={"X-Frame-Options": "", "Reporting-Endpoints": None, "X-Shop": "it's open"},
        nginx_hsts_preload=True,
        nginx_hsts_subdomains=True,
        nginx_limit_exempt=["192.0.2.1", "2001:db8::/32"],
    )
