"""Clients and listeners for the tests of scenario host."""

import json
import os
import re
import subprocess

import pytest
import testinfra

from helpers.repository import ROOT
from helpers.wait import wait_for

KEY = ROOT / ".local/ssh/id_ed25519"

# Echoes on TCP and UDP ports.
LISTENER = """
import select, socket, sys
tcp, udp, clients = [], [], []
for place in sys.argv[1:]:
    kind, port = place.split("/")
    kinds = {"tcp": (tcp, socket.SOCK_STREAM), "udp": (udp, socket.SOCK_DGRAM)}
    servers, type = kinds[kind]
    server = socket.socket(socket.AF_INET6, type)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", int(port)))
    servers.append(server)
    if kind == "tcp":
        server.listen(128)
while True:
    for ready in select.select(tcp + udp + clients, [], [])[0]:
        if ready in tcp:
            clients.append(ready.accept()[0])
        elif ready in udp:
            message, sender = ready.recvfrom(100)
            ready.sendto(message, sender)
        else:
            try:
                message = ready.recv(100)
                ready.sendall(message)
            except OSError:
                message = b""
            if not message:
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
# Receives what base_failure_webhook sends.
WEBHOOK = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        with open("/run/webhook", "ab") as file:
            file.write(self.rfile.read(int(self.headers["Content-Length"])) + b"\\n")
        self.send_response(204)
        self.end_headers()
HTTPServer(("127.0.0.1", 8097), Receiver).serve_forever()
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
    """Listen on all ports of a site on every host, including ports that the firewall closes."""
    for host in hosts.values():
        host.run("systemctl stop listener.service webhook.service")
        host.check_output("touch /run/webhook /run/failures")
        host.check_output("systemd-run --unit=webhook --collect python3 -c %s", WEBHOOK)
        host.check_output(
            "systemd-run --unit=listener --collect python3 -c %s " + " ".join(PLACES), LISTENER
        )
    yield
    for host in hosts.values():
        host.run("systemctl stop listener.service webhook.service")


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
    """Return `outside(host, *ports, family="ipv4")`, which connects from the controller."""

    def outside(name, *places, family="ipv4"):
        address = addresses[name][family]
        return json.loads(_output("python3", "-c", CONNECT, address, "", *places))

    return outside


@pytest.fixture(scope="session")
def inside(hosts, addresses):
    """Return `inside(from, to, *ports, family="ipv4")`, which connects one host to another."""

    def inside(origin, name, *places, family="ipv4", source=""):
        command = "python3 -c %s %s %s " + " ".join(places)
        return json.loads(
            hosts[origin].check_output(command, CONNECT, addresses[name][family], source)
        )

    return inside


@pytest.fixture
def another(hosts):
    """Return `another(host)`, which adds a second IPv6 address to a host until the test ends."""
    address, given = "fd00:f1a5::9", []

    def another(name):
        hosts[name].check_output("ip -6 address replace %s/64 dev eth0 nodad", address)
        given.append(hosts[name])
        return address

    yield another
    for host in given:
        host.check_output("ip -6 address delete %s/64 dev eth0", address)


@pytest.fixture(scope="session")
def play(operator):
    """Return `play(name, *options, **variables)`, which runs a playbook of this scenario."""
    return lambda name, *options, **variables: operator.play(
        f"../molecule/host/{name}", *options, **variables
    )


@pytest.fixture(scope="session")
def configure(play):
    """Return `configure(role, **variables)`, which runs one role on host `site`."""
    return lambda role, **variables: play("converge", f"--tags={role}", "--limit=site", **variables)


@pytest.fixture
def login(address):
    """Return `login(user, *options)`, which logs in with ssh and returns the completed process."""
    options = ["-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    options += ["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no"]
    options += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]

    def login(user, *more, command="id -un", agent=()):
        return subprocess.run(
            [*agent, "ssh", *more, *options, "-i", KEY, f"{user}@{address}", command],
            capture_output=True,
            text=True,
            check=False,
        )

    return login


@pytest.fixture
def rules(hosts):
    """Return `rules(host)`, which returns the nftables table without elements of sets."""

    def rules(name):
        text = hosts[name].check_output("nft --stateless list table inet flaskstack")
        return re.sub(r"(?ms)^\s*elements = \{.*?\}\n?", "", text)

    return rules


@pytest.fixture
def wait_for_guard(hosts):
    """Return `wait_for_guard(seconds)`, which waits until the guard removed its files."""

    def wait_for_guard(seconds=0):
        site = hosts["site"]
        files = "ls /var/lib/flaskstack/lockout_guard 2>/dev/null || true"
        wait_for(lambda: site.check_output(files) == "", seconds, every=1)
        units = "systemctl list-units --all --plain --no-legend 'flaskstack-lockout-guard-*.timer'"
        assert site.check_output(units) == ""
        assert site.check_output("ls /etc/systemd/system | grep lockout-guard || true") == ""

    return wait_for_guard


@pytest.fixture
def name(host):
    """Return the host's name."""
    return host.ansible.get_variables()["inventory_hostname"]


@pytest.fixture
def only_site(name):
    """Skip the test on hosts other than `site`."""
    if name != "site":
        pytest.skip("one host is enough")


def _output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
