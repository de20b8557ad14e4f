"""Open and closed ports, and rollback of a change that locks the controller out."""

import json
import socket
from contextlib import ExitStack

import pytest

testinfra_hosts = ["ansible://site"]

WEB = ("tcp/80", "tcp/443", "udp/443")
CLOSED = ("tcp/3306", "tcp/5432", "tcp/6379", "tcp/6380", "tcp/8000", "udp/53")
# Rules without the real port of sshd.
LOCKED_OUT = {
    "__firewall_ssh_ports": [2022],
    "lockout_guard_timeout": 20,
    "lockout_guard_connect_timeout": 5,
}


def answers(answer, *places):
    """Return the same expected answer for each port."""
    return dict.fromkeys(places, answer)


@pytest.mark.parametrize("family", ["ipv4", "link"])
def test_the_site_is_open_to_all_and_other_ports_are_closed(outside, family):
    found = outside("site", "tcp/22", *WEB, *CLOSED, "tcp/9100", family=family)
    assert found == answers("open", "tcp/22", *WEB) | answers("silence", *CLOSED, "tcp/9100")


@pytest.mark.parametrize("family", ["ipv4", "link"])
def test_only_ssh_is_open_on_a_data_host(outside, family):
    found = outside("data", "tcp/22", *WEB, *CLOSED, family=family)
    assert found == answers("open", "tcp/22") | answers("silence", *WEB, *CLOSED)


def test_the_app_host_connects_to_database_and_redis(inside):
    """The bind address of the database is IPv4, that of cache and queue IPv6."""
    redis = ("tcp/6379", "tcp/6380")
    assert inside("site", "data", "tcp/3306", *redis) == {
        "tcp/3306": "open",
        **answers("silence", *redis),
    }
    assert inside("site", "data", "tcp/3306", *redis, "tcp/8000", family="ipv6") == {
        **answers("open", *redis),
        **answers("silence", "tcp/3306", "tcp/8000"),
    }


def test_other_addresses_cannot_connect_to_redis(inside, another):
    other = {"family": "ipv6", "source": another("site")}
    assert inside("site", "data", "tcp/6380", "tcp/22", **other) == {
        "tcp/6380": "silence",
        "tcp/22": "open",
    }


def test_firewall_rules_are_limited_to_their_sources(inside, outside):
    assert inside("data", "site", "tcp/9100") == {"tcp/9100": "open"}
    assert outside("site", "tcp/9100", "udp/60000") == {"tcp/9100": "silence", "udp/60000": "open"}


def test_the_host_connects_to_itself(inside):
    assert inside("site", "site", "tcp/8000", "tcp/3306") == answers("open", "tcp/8000", "tcp/3306")


def test_ipv6_neighbour_discovery(hosts, outside):
    hosts["site"].check_output("ip -6 neighbour flush dev eth0")
    assert outside("site", "tcp/80", family="link") == {"tcp/80": "open"}


def test_dropped_packets_are_counted_and_logged_within_limits(hosts, outside):
    """Check the rule, since a container cannot read the kernel log."""

    def refused():
        shown = hosts["site"].check_output("nft --json list chain inet flaskstack refused")
        rules = [item["rule"]["expr"] for item in json.loads(shown)["nftables"] if "rule" in item]
        counted = [
            expr["counter"]["packets"] for rule in rules for expr in rule if "counter" in expr
        ]
        return counted[0], rules

    before, rules = refused()
    outside("site", "tcp/8000")
    assert refused()[0] > before
    logging = next(rule for rule in rules if any("log" in expr for expr in rule))
    assert logging[0]["limit"]["rate"] == 600
    assert logging[1]["log"]["prefix"] == "flaskstack-firewall: "


# Connects from each source address in turn until one connection times out, and prints the count.
FLOOD = """python3 -c '
import itertools, socket, sys
address, *sources = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
for count, source in zip(range(100), itertools.cycle(sources)):
    with socket.socket(family) as client:
        client.settimeout(1)
        client.bind((source, 0))
        try:
            client.connect((address, 22))
        except TimeoutError:
            break
print(count)
' """


def test_the_ssh_rate_limit_is_per_source(hosts, addresses, another, outside):
    """An IPv6 /64 is one source."""
    data, site = hosts["data"], addresses["site"]
    ipv6 = [addresses["data"]["ipv6"], another("data")]
    for family, sources in {"ipv4": [""], "ipv6": ipv6}.items():
        command = FLOOD + " ".join(f'"{word}"' for word in [site[family], *sources])
        assert 55 <= int(data.check_output(command)) <= 75, family
    assert outside("site", "tcp/22") == {"tcp/22": "open"}
    assert outside("site", "tcp/22", family="link") == {"tcp/22": "open"}


# Holds a connection to another host. Replies pass only because it is established.
OUTBOUND = """python3 -c '
import socket, subprocess, sys
with socket.create_connection((sys.argv[1], 3306), timeout=5) as client:
    for action in ("reload", "restart", "reload"):
        subprocess.run(["systemctl", action, "nftables"], check=True)
        client.sendall(b"still open")
        print(client.recv(100).decode())
' """


def test_open_connections_survive_a_reload_and_a_restart(hosts, addresses):
    with ExitStack() as opened:
        clients = [
            opened.enter_context(socket.create_connection((addresses["site"][family], 80), 5))
            for family in ("ipv4", "link")
        ]
        output = hosts["site"].check_output(OUTBOUND + addresses["data"]["ipv4"])
        assert output.splitlines() == ["still open"] * 3
        for client in clients:
            client.sendall(b"still open")
            assert client.recv(100) == b"still open"


def test_tables_of_other_programs_are_kept(hosts, rules):
    """Debian's own configuration of nftables.service flushes them."""
    host, before = hosts["site"], rules("site")
    host.check_output("nft add table inet others '{ set banned { type ipv4_addr; }; }'")
    host.check_output("nft add element inet others banned '{ 192.0.2.66 }'")
    for action in ("reload", "restart", "stop", "start"):
        host.check_output("systemctl %s nftables", action)
        assert "192.0.2.66" in host.check_output("nft list table inet others")
    host.check_output("nft delete table inet others")
    assert rules("site") == before


def test_the_rules_are_loaded_at_boot_before_the_network(hosts):
    for host in hosts.values():
        unit = host.check_output("systemctl show nftables --property=Before,WantedBy,ExecStart")
        shown = dict(line.split("=", 1) for line in unit.splitlines())
        assert "network-pre.target" in shown["Before"].split()
        assert "sysinit.target" in shown["WantedBy"].split()
        assert shown["ExecStart"].count("argv[]") == 1
        assert "/etc/flaskstack/firewall.nft" in shown["ExecStart"]
        assert host.check_output("systemd-analyze verify --man=no nftables.service") == ""


def test_a_change_that_locks_out_is_rolled_back(configure, rules, outside, wait_for_guard):
    """Packets to the previous port are dropped, so that new connections time out."""
    before = rules("site")
    done = configure("firewall", **LOCKED_OUT)
    assert done.code != 0
    assert done.says("site rolled back the change of firewall")
    assert done.says("/etc/flaskstack/firewall.nft, /etc/flaskstack/firewall.d")
    wait_for_guard()
    assert rules("site") == before
    assert outside("site", "tcp/22") == {"tcp/22": "open"}


def test_lockouts_and_other_firewalls_are_rejected(configure, hosts, rules):
    before = rules("site")
    hosts["site"].check_output("mkdir -p /etc/ufw && echo ENABLED=yes >/etc/ufw/ufw.conf")
    done = configure("firewall", firewall_ssh_sources=["192.0.2.1"])
    hosts["site"].check_output("rm -r /etc/ufw")
    assert done.says("firewall_ssh_sources is [192.0.2.1]: does not contain this controller")
    assert done.says("firewall_enabled is true: conflicts with ufw, which is enabled on site")
    assert done.changed == 0
    assert rules("site") == before


def test_the_firewall_can_be_disabled(configure, hosts, outside):
    """nftables.service is left as Debian installs it."""
    site = hosts["site"]
    site.check_output("nft add table inet others")
    done = configure("firewall", firewall_enabled=False)
    assert done.code == 0, done.output
    assert "flaskstack" not in site.check_output("nft list tables")
    assert site.run("systemctl is-enabled nftables").stdout == "disabled\n"
    assert "/etc/nftables.conf" in site.check_output("systemctl show nftables -p ExecStart")
    assert outside("site", "tcp/8000") == {"tcp/8000": "open"}

    assert configure("firewall").code == 0
    assert outside("site", "tcp/80", "tcp/8000") == {"tcp/80": "open", "tcp/8000": "silence"}
    site.check_output("nft delete table inet others")
