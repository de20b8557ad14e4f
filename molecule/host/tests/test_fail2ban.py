"""Bans of addresses, and exemptions.

nginx is not installed. A unit with its name writes the log lines.
"""

import json
import subprocess

import pytest

from helpers.wait import wait_for

testinfra_hosts = ["ansible://site"]

OUTSIDER = "fd00:f1a5::66"  # in the hosts' network, but not an address of a host
SCANNERS = "fd00:f1a5:0:7"
CLIENT = "198.51.100.7"
NETWORK = ("2001:db8:1::", "2001:db8:1:0:")
# Writes lines to /dev/log as nginx does, and runs until journald has attributed them.
WRITER = """
import socket, sys, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
    journal.connect("/dev/log")
    for line in sys.argv[3:]:
        journal.send(f"<{sys.argv[1]}>Nov 21 14:00:00 {sys.argv[2]}: {line}".encode())
    time.sleep(0.5)
"""
NOTICE, INFO = "189", "190"
SSH = (
    "ssh -F none {} -o PubkeyAuthentication=no -o BatchMode=yes -o ConnectTimeout=3 "
    "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null root@{} true"
)


def line(uri="/", status=404, client=CLIENT, **more):
    """Return a log line of nginx in the format of role nginx."""
    fields = {
        "time": "2026-11-21T14:00:00+00:00",
        "request_id": "8f1e5c2ab0d44f0e9b0d1b5d7f3a9c11",
        "remote_addr": client,
        "remote_bits": 64 if ":" in client else 32,
        "peer_addr": client,
        "forwarded_for": "",
        "scheme": "https",
        "host": "shop.example.org",
        "method": "GET",
        "uri": uri,
        "protocol": "HTTP/2.0",
        "status": status,
        "bytes_sent": 153,
        "request_time": 0.004,
        "upstream_status": "",
        "referer": "",
        "user_agent": 'a "quoted\\" agent',
    }
    return json.dumps(fields | more, separators=(",", ":"))


@pytest.fixture
def write(host):
    """Return `write(tag, lines, …)`, which writes lines of a unit to the journal."""

    def write(tag, lines, level=NOTICE, unit="nginx"):
        command = f"systemd-run --quiet --wait --collect --unit={unit} python3 -c %s {level} {tag}"
        host.check_output(command + " %s" * len(lines), WRITER, *lines)

    return write


@pytest.fixture
def banned(host):
    """Return `banned(jail)`, which returns the banned addresses."""
    return lambda jail: host.check_output("fail2ban-client get %s banip", jail).split()


@pytest.fixture
def found(host):
    """Return `found(jail)`, which returns the number of counted failures."""

    def found(jail):
        status = host.check_output("fail2ban-client status %s", jail)
        return int(status.split("Total failed:")[1].split()[0])

    return found


@pytest.fixture(autouse=True)
def _unban(host):
    """Remove all bans. Failures stay counted, so each test uses its own addresses."""
    yield
    host.check_output("fail2ban-client unban --all")


@pytest.fixture
def failed_login(hosts, addresses):
    """Return `failed_login()`, which fails to log in from another address; it returns stderr."""
    host = hosts["data"]
    host.check_output(f"ip -6 address replace {OUTSIDER}/64 dev eth0 nodad")
    command = SSH.format(f"-b {OUTSIDER}", addresses["site"]["ipv6"])
    # testinfra treats exit status 255 as an error of its own SSH connection.
    yield lambda: host.run(f"{command} || false").stderr
    host.check_output(f"ip -6 address del {OUTSIDER}/64 dev eth0")


def test_failed_logins_are_banned_and_unbanned(
    host, banned, failed_login, outside, inside, addresses
):
    for _ in range(3):
        assert "Permission denied" in failed_login()
    wait_for(lambda: OUTSIDER in banned("sshd"), 20)
    assert "Connection refused" in failed_login()
    # The other host is in the same /64 and exempt.
    exempt = {"family": "ipv6", "source": addresses["data"]["ipv6"]}
    assert inside("data", "site", "tcp/22", **exempt) == {"tcp/22": "open"}
    assert "/64" in host.check_output("nft list table inet f2b-table")
    assert outside("site", "tcp/22") == {"tcp/22": "open"}
    assert "priority filter - 1" in host.check_output("nft list table inet f2b-table")

    host.check_output("fail2ban-client unban %s", OUTSIDER)
    assert "Permission denied" in failed_login()


def test_no_log_line_of_sshd_is_dropped(host):
    """`base_journal_rate_limit` is 300 here."""
    limit = "/run/systemd/units/log-rate-limit-burst:ssh.service"
    assert int(host.check_output(f"readlink {limit}")) == 100_000


@pytest.mark.parametrize("unit", ["ssh", "fail2ban"])
def test_units_restart_after_repeated_failures(host, unit):
    names = "StartLimitIntervalUSec,Restart,RestartPreventExitStatus"
    assert set(host.check_output(f"systemctl show {unit} --property={names}").split()) == {
        "StartLimitIntervalUSec=0",
        "Restart=on-failure",
        "RestartPreventExitStatus=",
    }


def test_the_controller_and_the_hosts_are_not_banned(host, hosts, banned, addresses):
    """Both reach the retry limit of the jail."""
    controller = json.loads(host.check_output("ip -json route show default"))[0]["gateway"]
    command = SSH.format("", addresses["site"]["ipv4"])
    for _ in range(4):
        failed = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        assert "Permission denied" in failed.stderr
        hosts["data"].run(f"{command} || false")
    for address in (controller, addresses["data"]["ipv4"]):
        wait_for(lambda address=address: logged(host, f"[sshd] Ignore {address} "), 20)
    assert banned("sshd") == []


def logged(host, words):
    """Return whether fail2ban has logged these words."""
    return words in host.check_output("journalctl --unit=fail2ban --boot --output=cat")


def test_scanners_are_banned_by_network(write, banned, inside, hosts):
    """One request each from three addresses bans their /64, and not another /64."""
    data = hosts["data"]
    scanners = [f"{SCANNERS}::{number}" for number in range(1, 5)]
    another = "fd00:f1a5:0:8::1"
    for address in (scanners[3], another):
        data.check_output(f"ip -6 address replace {address}/64 dev eth0 nodad")
    for network in (SCANNERS, "fd00:f1a5:0:8"):
        hosts["site"].check_output(f"ip -6 route replace {network}::/64 dev eth0")
    scan = ["/.env", "/wp-login.php?x=1", "/app/.git/config"]
    write("nginx_shop", [line(*probe) for probe in zip(scan, [404] * 3, scanners, strict=False)])
    wait_for(lambda: banned("shop-probes") == [f"{SCANNERS}::/64"], 20)
    places = ("tcp/80", "udp/443", "tcp/22")
    try:
        banned_network = inside("data", "site", *places, family="ipv6", source=scanners[3])
        other_network = inside("data", "site", *places, family="ipv6", source=another)
    finally:
        for address in (scanners[3], another):
            data.check_output(f"ip -6 address del {address}/64 dev eth0")
    refused = "ConnectionRefusedError"
    assert banned_network == {"tcp/80": refused, "udp/443": refused, "tcp/22": "open"}
    assert other_network == dict.fromkeys(places, "open")


def test_bursts_of_denied_and_refused_requests_are_banned(write, banned):
    write("nginx_shop", [line("/login", 403, upstream_status="403"), line("/login", 429)] * 3)
    write("nginx_refused", [line(status=444)] * 4, level=INFO)
    wait_for(lambda: banned("shop-denied") == [CLIENT], 20)
    wait_for(lambda: banned("nginx-refused") == [CLIENT], 20)
    assert banned("shop-probes") == []


def test_ordinary_requests_do_not_count(write, banned, found):
    """The last line counts, which proves that all lines were read."""
    forged = '"},{"remote_addr":"203.0.113.5","uri":"/.env","status":404,"x":"'
    harmless = [
        line("/.env", 200),
        line("/environment"),
        line("/blog/2026/php"),
        line("/index.php?id=3"),
        line("/wp-content/uploads/2019/a.jpg"),
        line("/autodiscover/autodiscover.xml"),
        line("/.env", forwarded_for="203.0.113.5"),  # from a proxy missing in app_trusted_proxies
        line("/.env", client="fd00:f1a5::2"),  # the other host; its network must not be banned
        line("/ok", 400, user_agent=forged),
        line('/.env?"","status":404,"', 200),
    ]
    before = found("shop-probes")
    write("nginx_shop", harmless)
    write("nginx_shop", [line("/.env")] * 5, unit="other")
    write("nginx_shop", [line("/.env", client="198.51.100.8")])
    wait_for(lambda: found("shop-probes") > before, 20)
    assert found("shop-probes") == before + 1
    assert banned("shop-probes") == []


def test_401_and_403_of_nginx_do_not_count(write, banned, found):
    before = found("shop-denied")
    write("nginx_shop", [line("/login", 401), line("/login", 403)] * 10)
    write("nginx_shop", [line("/login", 429, client="198.51.100.9")])
    wait_for(lambda: found("shop-denied") > before, 20)
    assert found("shop-denied") == before + 1
    assert banned("shop-denied") == []


def test_nginx_bans_behind_a_load_balancer(host, write, banned):
    folder = host.file(f"/run/flaskstack/banned/blog/{CLIENT}")
    write("nginx_blog", [line("/.env", app="blog")] * 3)
    write("nginx_blog", [line("/login", 429, app="blog")] * 6)
    wait_for(lambda: banned("blog-probes") == banned("blog-denied") == [CLIENT], 20)
    assert folder.is_directory
    network = [line("/.env", app="blog", client=f"2001:db8:1::{number}") for number in (1, 2, 3)]
    write("nginx_blog", network)
    # nginx writes the first 64 bits of an address in one of two forms: see tests/nginx.
    folders = [host.file(f"/run/flaskstack/banned/blog/{name}") for name in NETWORK]
    wait_for(lambda: all(found.is_directory for found in folders), 20)
    host.check_output("fail2ban-client set blog-probes unbanip 2001:db8:1::/64")
    assert not any(found.exists for found in folders)
    host.check_output("setpriv --reuid=www-data --regid=www-data --clear-groups ls %s", folder.path)
    assert CLIENT not in host.check_output("nft list ruleset")

    host.check_output("fail2ban-client set blog-probes unbanip %s", CLIENT)
    assert folder.is_directory
    host.check_output("fail2ban-client set blog-denied unbanip %s", CLIENT)
    assert not folder.exists


JAILS = ("sshd", "nginx-refused", "shop-probes", "blog-probes")


def test_the_load_balancer_of_one_app_is_exempt_in_all_jails(host):
    ignored = {jail: host.check_output("fail2ban-client get %s ignoreip", jail) for jail in JAILS}
    assert all("192.0.2.80" in addresses for addresses in ignored.values()), ignored
