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
    assert len(one) == 8
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


@pytest.mark.parametrize("folder", ["shop/static", "shop/static/"])
def test_a_static_folder_and_its_url_end_with_a_slash(site, folder):
    found = locations(site(app_prefix="/shop", app_static=[{"url": "/static/", "folder": folder}]))
    assert "alias /srv/shop/current/shop/static/;" in found["^~ /shop/static/"]


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
        app_static=[{"url": "/static/", "folder": "shop/static"}],
        app_streaming_paths=["/events"],
        app_websocket_paths=["/socket.io/", "/"],
    )
