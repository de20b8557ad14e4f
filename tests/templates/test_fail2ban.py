"""fail2ban jails, ban actions and ignored addresses."""

import configparser
import re

import pytest

from helpers.templates import problems

HOSTS = {
    "host": {
        "ansible_host": "203.0.113.10",
        "ansible_facts": {"all_ipv4_addresses": ["10.0.0.1"], "all_ipv6_addresses": ["fe80::1"]},
    },
    "data": {"ansible_host": "data.example.org", "firewall_addresses": ["10.0.0.2"]},
}
KNOWN = {
    "ansible_facts": {"env": {"SSH_CONNECTION": "203.0.113.9 50000 203.0.113.10 22"}},
    "groups": {"all": ["host", "data"]},
    "hostvars": HOSTS,
}


@pytest.fixture
def file(render):
    """Return a function that returns the sections of a rendered file."""

    def file(name, **variables):
        found = configparser.RawConfigParser()
        found.read_string(render("fail2ban", f"etc/fail2ban/{name}.j2", **KNOWN | variables))
        return found

    return file


def ignored(file, **variables):
    """Return the addresses that the host's jails ignore."""
    return set(file("jail.d/flaskstack-ignore.conf", **variables)["DEFAULT"]["ignoreip"].split())


def test_controller_hosts_and_proxies_are_never_banned(file):
    given = {"fail2ban_ignore": ["198.51.100.0/24"], "app_trusted_proxies": ["10.1.0.0/16"]}
    hosts = {"127.0.0.0/8", "::1", "203.0.113.9", "203.0.113.10", "10.0.0.1", "10.0.0.2"}
    assert ignored(file, **given) == {*hosts, "198.51.100.0/24", "10.1.0.0/16"}


def test_ignored_addresses_of_other_apps_are_never_banned(file):
    other = {"app": "blog", "ignore": ["192.0.2.80"]}
    facts = {"ansible_local": {"flaskstack_fail2ban_blog": other}}
    assert "192.0.2.80" in ignored(file, ansible_facts=facts)


def test_previous_ignore_list_of_the_same_app_is_replaced(file):
    before = {"app": "shop", "ignore": ["192.0.2.80"]}
    facts = {"ansible_local": {"flaskstack_fail2ban_shop": before}}
    assert "192.0.2.80" not in ignored(file, ansible_facts=facts)


def test_ban_action_behind_a_load_balancer_is_in_nginx(file):
    jails = ("shop-probes", "shop-missing", "shop-denied")
    alone = file("jail.d/site.conf")
    behind = file("jail.d/site.conf", app_trusted_proxies=["10.1.0.0/16"])
    for jail in jails:
        assert "banaction" not in alone[jail]
        assert behind[jail]["banaction"] == "flaskstack-nginx[folder=/run/flaskstack/banned/shop]"
    assert "banaction" not in behind["nginx-refused"]


def test_ignored_address_in_a_banned_network_is_exempt(file):
    given = {"fail2ban_ignore": ["2001:DB8::0:5", "2001:db8:9::/48"]}
    action = file("action.d/flaskstack-nftables.conf", **given)["Init?family=inet6"]
    assert {"2001:db8::5/128,", "2001:db8:9::/48"} <= set(action["exempt"].split())
    regex = file("filter.d/flaskstack-nginx.conf", **given)["Definition"]["ignoreregex"].split(
        "\n"
    )[-1]
    assert re.search(regex, '{"remote_addr":"2001:db8::5",')
    assert not re.search(regex, '{"remote_addr":"2001:db8::6",')


def test_journal_is_matched_by_unit(file):
    for section in (
        *file("jail.d/site.conf").values(),
        file("jail.d/flaskstack-host.conf")["sshd"],
    ):
        if section.name != "DEFAULT":
            assert section["journalmatch"].startswith("_SYSTEMD_UNIT=")


def test_zero_retries_disable_the_jail(file, evaluate):
    none = {"fail2ban_ssh_retries": 0}
    assert file("jail.d/flaskstack-host.conf", **none)["sshd"]["enabled"] == "false"
    assert file("jail.d/site.conf", **none)["shop-missing"]["enabled"] == "false"
    assert file("jail.d/site.conf", **none)["shop-probes"]["enabled"] == "true"
    jails = evaluate("fail2ban", "__fail2ban_jails", **none)
    assert jails == ["nginx-refused", "shop-probes", "shop-denied"]


def test_invalid_settings_are_rejected():
    """See tests/plugins/test_host_checks.py for each check."""
    assert problems("fail2ban") == []
    (time, maximum) = problems("fail2ban", fail2ban_find_time=0, fail2ban_ban_time_max=60)
    assert time.startswith("fail2ban_find_time is 0: ")
    assert maximum.startswith("fail2ban_ban_time_max is 60: ")


def test_service_restarts_without_limit_and_is_confined(render):
    text = render("fail2ban", "etc/systemd/system/fail2ban.service.d/flaskstack.conf.j2")
    lines = set(text.splitlines())
    assert {"StartLimitIntervalSec=0", "RestartSec=5", "NoNewPrivileges=yes"} < lines
    assert "CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_NET_ADMIN CAP_NET_RAW" in lines
    assert "MemoryMax=20%" in lines
