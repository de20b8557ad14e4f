"""Clients and listeners for the tests of scenario host."""

import json
import os
import re
import socket
import subprocess

import pytest
import testinfra

from helpers.wait import wait_for

# Echoes on TCP and UDP ports.
LISTENER = """
import select, socket, sys
tcp, udp, clients = [], [], []
for place in sys.argv[1:]:
    kind, port = place.split("/")
    made = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    server = socket.socket(socket.AF_INET6, made)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", int(port)))
    (tcp if kind == "tcp" else udp).append(server)
    if kind == "tcp":
        server.listen(128)
while True:
    for ready in select.select(tcp + udp + clients, [], [])[0]:
        if ready in tcp:
            clients.append(ready.accept()[0])
        elif ready in udp:
            said, sender = ready.recvfrom(100)
            ready.sendto(said, sender)
        else:
            try:
                said = ready.recv(100)
                ready.sendall(said)
            except OSError:
                said = b""
            if not said:
                clients.remove(ready)
                ready.close()
"""
# Connects to all ports at once and prints the result of each.
CONNECT = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
address, source, *places = sys.argv[1:]
def connect(place):
    kind, port = place.split("/")
    kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
    where = socket.getaddrinfo(address, int(port), type=kinds[kind])[0]
    with socket.socket(where[0], kinds[kind]) as client:
        client.settimeout(1.5)
        try:
            if source:
                client.bind((source, 0))
            client.connect(where[4])
            if kind == "udp":
                client.send(b"hello")
                client.recv(100)
            return "open"
        except TimeoutError:
            return "silence"
        except OSError as error:
            return error.__class__.__name__
with ThreadPoolExecutor(len(places)) as pool:
    print(json.dumps(dict(zip(places, pool.map(connect, places)))))
"""
PORTS = (80, 443, 3306, 5432, 6379, 6380, 7000, 8000, 9100)
PLACES = [f"tcp/{port}" for port in PORTS] + ["udp/443", "udp/53", "udp/60000"]


@pytest.fixture(scope="session")
def hosts():
    """Return the hosts by name."""
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    return {
        name: testinfra.get_host(f"ansible://{name}", ansible_inventory=inventory, sudo=True)
        for name in ("site", "data")
    }


@pytest.fixture(scope="session", autouse=True)
def listeners(hosts):
    """Listen on all ports of a site on every host, closed ones included."""
    for host in hosts.values():
        host.run("systemctl stop listener.service")
        host.check_output(
            "systemd-run --unit=listener --collect python3 -c %s " + " ".join(PLACES), LISTENER
        )
    yield
    for host in hosts.values():
        host.run("systemctl stop listener.service")


@pytest.fixture(scope="session")
def addresses(hosts):
    """Return `addresses[host][family]`; `link` is the link-local address."""
    found = {}
    for name, host in hosts.items():
        ipv4 = host.ansible.get_variables()["ansible_host"]
        bridge = re.search(r"dev (\S+)", _output("ip", "route", "get", ipv4)).group(1)
        shown = json.loads(host.check_output("ip -json address show dev eth0"))[0]["addr_info"]
        link = next(item["local"] for item in shown if item["scope"] == "link")
        ipv6 = {"site": "fd00:f1a5::1", "data": "fd00:f1a5::2"}[name]
        found[name] = {"ipv4": ipv4, "ipv6": ipv6, "link": f"{link}%{bridge}"}
    return found


@pytest.fixture(scope="session")
def outside(addresses):
    """Give `outside(host, *ports, family="ipv4")`: results of connections from the controller."""

    def outside(name, *places, family="ipv4"):
        address = addresses[name][family]
        return json.loads(_output("python3", "-c", CONNECT, address, "", *places))

    return outside


@pytest.fixture(scope="session")
def inside(hosts, addresses):
    """Give `inside(from, to, *ports, family="ipv4")`: results of connections between hosts."""

    def inside(origin, name, *places, family="ipv4", source=""):
        command = "python3 -c %s %s %s " + " ".join(places)
        return json.loads(
            hosts[origin].check_output(command, CONNECT, addresses[name][family], source)
        )

    return inside


@pytest.fixture
def another(hosts):
    """Give `another(host)`: add a second IPv6 address to a host until the test ends."""
    address, given = "fd00:f1a5::9", []

    def another(name):
        hosts[name].check_output("ip -6 address replace %s/64 dev eth0 nodad", address)
        given.append(hosts[name])
        return address

    yield another
    for host in given:
        host.check_output("ip -6 address delete %s/64 dev eth0", address)


@pytest.fixture
def play(operator):
    """Give `play(name, *options, **variables)`: run a playbook of this scenario."""
    return lambda name, *options, **variables: operator.play(
        f"../molecule/host/{name}", *options, **variables
    )


@pytest.fixture
def cut(operator):
    """Give `cut(task, *options, **variables)`: kill firewall.yml when a task begins."""
    return lambda task, *options, **variables: operator.interrupt(
        "../molecule/host/firewall", task, None, *options, **variables
    )


@pytest.fixture
def held(addresses):
    """Give `held(host, port)`: an open connection that echoes."""
    opened = []

    def held(name, port, family="ipv4"):
        client = socket.create_connection((addresses[name][family], port), timeout=5)
        opened.append(client)

        def echo(word):
            client.sendall(word.encode())
            return client.recv(100).decode()

        return echo

    yield held
    for client in opened:
        client.close()


@pytest.fixture
def rules(hosts):
    """Give `rules(host)`: the text of the table, without dynamic elements."""

    def rules(name):
        text = hosts[name].check_output("nft --stateless list table inet flaskstack")
        return re.sub(r"(?ms)^\s*elements = \{.*?\}\n?", "", text)

    return rules


@pytest.fixture
def guard_gone(hosts):
    """Give `guard_gone(host)`: wait until the lockout guard has removed its files and units."""

    def guard_gone(name, seconds=60):
        files = "ls /var/lib/flaskstack/lockout_guard 2>/dev/null || true"
        wait_for(lambda: hosts[name].check_output(files) == "", seconds, every=1)
        units = "systemctl list-units --all --plain --no-legend 'flaskstack-lockout-guard-*.timer'"
        assert hosts[name].check_output(units) == ""
        assert hosts[name].check_output("ls /etc/systemd/system | grep lockout-guard || true") == ""

    return guard_gone


@pytest.fixture
def name(host):
    """Return the host's name."""
    return host.ansible.get_variables()["inventory_hostname"]


@pytest.fixture
def only_site(name):
    """Skip the test on other hosts."""
    if name != "site":
        pytest.skip("one host is enough")


def _output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
