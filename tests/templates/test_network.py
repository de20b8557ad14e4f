"""Egress rules of an app."""

import pytest

SECRET = "k3Yq8ZpW0vXr6TtB1nMc4JdL7sHf2GaU"
APP = {"app_wsgi": "shop.web:create_app()", "app_secret_key": SECRET}
METADATA = "169.254.0.0/16"


@pytest.fixture
def rules(render):
    """Return a function that renders the lines of the app's chain."""

    def rules(**variables):
        text = render("gunicorn", "etc/app/network.nft.j2", **APP | variables)
        chain = text.split("chain app {")[1].split("}\n\n")[0]
        return [line.strip() for line in chain.splitlines() if line.strip()]

    return rules


def test_default_allows_the_internet_but_no_private_network(rules):
    lines = rules()
    refused = next(line for line in lines if line.startswith("ip daddr"))
    assert METADATA in refused
    assert "10.0.0.0/8" in refused
    assert refused.endswith("goto refused")
    assert lines.index(refused) < lines.index('oifname != "lo" accept')
    assert lines[-1] == "goto refused"


def test_empty_list_denies_all_destinations(rules):
    lines = rules(app_network=[])
    assert lines[-1] == "goto refused"
    assert not [line for line in lines if "th dport 53" in line or 'oifname != "lo"' in line]


def test_listed_addresses_are_accepted_before_networks_are_denied(rules):
    lines = rules(app_network=["internet", "10.0.0.7", "fd00:1::/64", "169.254.169.254"])
    named = [line for line in lines if line.endswith("} accept")]
    assert "ip daddr { 10.0.0.7/32, 169.254.169.254/32 } accept" in named
    assert "ip6 daddr { fd00:1::/64 } accept" in named
    assert lines.index(named[-1]) < lines.index('oifname != "lo" accept')


def test_any_excludes_the_metadata_service(rules):
    lines = rules(app_network=["any"])
    assert [line for line in lines if METADATA in line and line.endswith("goto refused")]
    assert not [line for line in lines if "10.0.0.0/8" in line]
    assert lines[-2:] == ["accept", "goto refused"]


def test_localhost_allows_loopback(rules):
    assert 'oifname "lo" accept' in rules(app_network=["localhost"])
    assert 'oifname "lo" accept' not in rules()


def test_database_and_redis_servers_are_allowed(rules):
    lines = rules(
        app_network=[], app_database_host="10.0.0.5", app_queue_host="fd00::6", app_queue_port=6390
    )
    assert "ip daddr 10.0.0.5 tcp dport 3306 accept" in lines
    assert "ip6 daddr fd00::6 tcp dport 6390 accept" in lines
    assert not [line for line in lines if "th dport 53" in line]


def test_server_with_a_host_name_needs_dns(rules):
    lines = rules(app_network=[], app_database_host="db.example.com", app_database_port=25060)
    assert "tcp dport 25060 accept" in lines
    assert "meta l4proto { tcp, udp } th dport 53 accept" in lines


def test_readable_directories_are_mounted(render):
    unit = render(
        "gunicorn",
        "units/web@.service.j2",
        **APP,
        app_readable_paths=["/srv/films/"],
        app_internal=[{"url": "/f/", "folder": "/mnt/more"}, {"url": "/u/", "folder": "uploads"}],
    )
    seen = [line.split("=-")[1] for line in unit.splitlines() if "BindReadOnlyPaths=-" in line]
    assert seen[0] == "/srv/shop"
    assert seen[-2:] == ["/srv/films", "/mnt/more"]
