"""The site in front of the app, and the server that refuses every other name."""

from __future__ import annotations

import re

import pytest

SITE = "etc/nginx/sites-enabled/site.conf.j2"
DEFAULT = "etc/nginx/sites-enabled/default.j2"


@pytest.fixture
def site(render):
    """Return a function that renders the site of an app with the variables given."""

    def of(**variables):
        return render("nginx", SITE, **{"app_domains": ["shop.example.org"]} | variables)

    return of


@pytest.fixture
def refused(evaluate):
    """Return a function that tells what is said about the variables given."""

    def about(**variables):
        known = {"app_domains": ["shop.example.org"]} | variables
        return "\n".join(evaluate("nginx", "__nginx_refusals", **known))

    return about


def locations(text):
    """Return the body of each location by what it matches."""
    return dict(re.findall(r"(?ms)^    location (.+?) \{\n(.*?)^    \}$", text))


def test_headers_are_set_for_the_whole_server_and_nowhere_less(site):
    text = site(app_streaming_paths=["/events"], app_websocket_paths=["/ws/"])
    # One in a location would switch off all those of the server.
    assert not any("proxy_set_header" in body for body in locations(text).values())
    assert len(re.findall(r"^    proxy_set_header ", text, re.MULTILINE)) > 20


def test_nothing_of_one_site_has_the_name_of_another(site):
    def names(text):
        defined = re.findall(r'^(?:geo|map) (?:\S+|"[^"]*") \$(\w+) \{', text, re.MULTILINE)
        return {*defined, *re.findall(r"^(?:upstream|log_format) (\w+)", text, re.MULTILINE)}

    one, two = names(site(app_name="shop")), names(site(app_name="shop_two"))
    assert len(one) > 8
    assert one.isdisjoint(two)


@pytest.mark.parametrize(("prefix", "passed"), [("", ""), ("/shop", "/")])
def test_the_app_is_mounted_under_the_prefix(site, prefix, passed):
    found = locations(site(app_prefix=prefix))
    assert f"proxy_pass http://app_shop{passed};" in found[f"{prefix}/"]
    assert ("return 404" in found["/"]) == bool(prefix)


def test_a_path_is_below_the_prefix_and_served_once(site):
    text = site(
        app_prefix="/shop", app_streaming_paths=["/events", "/"], app_websocket_paths=["/ws/", "/"]
    )
    found = locations(text)
    assert text.count("location /shop/ {") == 1
    assert "proxy_pass http://app_shop/events;" in found["= /shop/events"]
    assert "$http_upgrade" not in found["= /shop/events"]
    assert "$http_upgrade" in found["/shop/ws/"]
    assert "proxy_buffering off" in found["/shop/"]


def served(text):
    """Return what each pattern of the site matches with: the files it tries and its headers."""
    found = re.findall(r'(?ms)^ +location ~ "(.+?)" \{\n(.*?)^ +\}$', text)
    return {pattern.replace("\\\\", "\\"): body for pattern, body in found}


def tried(text, path):
    """Return the files that nginx would try for a path, the first that matches deciding."""
    for pattern, body in served(text).items():
        if match := re.search(pattern, path):
            root = re.search(r"root (\S+);", body).group(1)
            files = re.findall(r'"(/[^"]+)"', re.search(r"try_files (.*);", body).group(1))
            return [root + re.sub(r"\$(\d)", lambda n: match[int(n[1])], name) for name in files]
    return []


@pytest.mark.parametrize("folder", ["shop/static", "shop/static/"])
def test_a_static_file_is_of_this_release_or_of_the_one_before(site, folder):
    text = site(app_prefix="/shop", app_static=[{"url": "/static/", "folder": folder}])
    assert "return 404;" in locations(text)["^~ /shop/static/"]
    assert tried(text, "/shop/static/js/page.js") == [
        "/srv/shop/current/shop/static/js/page.js",
        "/srv/shop/previous/shop/static/js/page.js",
    ]
    assert "immutable" in text
    for path in (".hidden", ".git/config", "js/.hidden", "../beside.txt", "x../beside.txt", ""):
        assert not tried(text, f"/shop/static/{path}")


def test_a_pattern_picks_files_of_a_folder(site):
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


def test_a_shared_folder_is_not_cached_like_a_release(site):
    text = site(app_static=[{"url": "/media/", "folder": "uploads", "shared": True}])
    assert tried(text, "/media/a.png") == ["/srv/shop/shared/uploads/a.png"]
    assert "immutable" not in text
    assert "nosniff" in text


def test_an_internal_folder_is_for_the_app_to_name(site):
    folders = [{"url": "/files/", "folder": "uploads/"}, {"url": "/big/", "folder": "/mnt/big"}]
    found = locations(site(app_prefix="/shop", app_internal=folders))
    assert "internal;" in found["^~ /files/"]
    assert 'alias "/srv/shop/shared/uploads/";' in found["^~ /files/"]
    assert 'alias "/mnt/big/";' in found["^~ /big/"]


@pytest.mark.parametrize(
    ("groups", "here"), [(["edge"], False), (["edge", "app"], True), (["all"], True)]
)
def test_where_the_app_is_not_it_is_asked_for_its_static_files(site, refused, groups, here):
    static = {"app_static": [{"url": "/static/", "folder": "static"}], "group_names": groups}
    assert bool(tried(site(**static), "/static/a.js")) == here
    assert not refused(**static)
    assert bool(refused(app_internal=[{"url": "/f/", "folder": "f"}], group_names=groups)) != here


def test_nginx_may_read_the_shared_folders_that_it_serves_and_pass_to_them(evaluate):
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


def test_what_is_too_large_is_told_the_limit(site):
    found = locations(site(app_upload_size=25))
    assert "up to 25 MiB" in found["@too_large"]
    assert "return 413 " in found["@too_large"]


def test_timeouts_and_upstreams_are_those_of_the_plan_and_the_inventory(site):
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
def test_a_host_without_ipv6_does_not_listen_on_it(site, render, facts, listens):
    for text in (site(ansible_facts=facts), render("nginx", DEFAULT, ansible_facts=facts)):
        assert "listen 80" in text
        assert ("listen [::]:80" in text) == listens


def test_only_our_own_names_are_taken_from_a_load_balancer(site):
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
        ("app_domains", ["https://shop.example.org"]),
        ("app_domains", ["shop.example.org:8080"]),
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
        ("nginx_listen", []),
        ("nginx_upstreams", []),
        ("nginx_proxy_read_timeout", 0),
    ],
)
def test_what_cannot_work_is_refused(refused, variable, value):
    assert refused(**{variable: value}).startswith(f"{variable} is ")


def test_what_works_is_not_refused(refused):
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
    )
