"""Who is banned, for what, how, and who never is.

nginx is not on these hosts: a unit of its name writes its lines as it would.
"""

import json
import subprocess

import pytest

from helpers.wait import wait_for

testinfra_hosts = ["ansible://site"]

STRANGER = "fd00:f1a5::66"  # of the network that the hosts share, and none of theirs
SCANNERS = "fd00:f1a5:0:7"
CLIENT = "198.51.100.7"
NETWORK = ("2001:db8:1::", "2001:db8:1:0:")
# Says to /dev/log what it is told, as nginx does, and stays until the journal knows who it was.
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
    """Return a line of nginx' as role nginx has it."""
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
    """Give `write(tag, lines, …)`: have them in the journal as the lines of a unit."""

    def write(tag, lines, level=NOTICE, unit="nginx"):
        command = f"systemd-run --quiet --wait --collect --unit={unit} python3 -c %s {level} {tag}"
        host.check_output(command + " %s" * len(lines), WRITER, *lines)

    return write


@pytest.fixture
def banned(host):
    """Give `banned(jail)`: whom it has banned."""
    return lambda jail: host.check_output("fail2ban-client get %s banip", jail).split()


@pytest.fixture
def found(host):
    """Give `found(jail)`: how many failures it has counted."""

    def found(jail):
        status = host.check_output("fail2ban-client status %s", jail)
        return int(status.split("Total failed:")[1].split()[0])

    return found


@pytest.fixture(autouse=True)
def _forgiven(host):
    """Leave nobody banned. What was found stays on record, so each test has clients of its own."""
    yield
    host.check_output("fail2ban-client unban --all")


@pytest.fixture
def stranger(hosts, addresses):
    """Give `stranger()`: what a failed login from a machine outside the inventory meets."""
    host = hosts["data"]
    host.check_output(f"ip -6 address replace {STRANGER}/64 dev eth0 nodad")
    command = SSH.format(f"-b {STRANGER}", addresses["site"]["ipv6"])
    yield lambda: host.run(f"{command} || false").stderr  # 255 would be testinfra's own ssh
    host.check_output(f"ip -6 address del {STRANGER}/64 dev eth0")


def test_failed_logins_are_banned_and_forgiven(host, banned, stranger, outside, inside, addresses):
    for _ in range(3):
        assert "Permission denied" in stranger()
    wait_for(lambda: STRANGER in banned("sshd"), 20)
    assert "Connection refused" in stranger()
    # The other host has an address of the same /64, and is never banned.
    exempt = {"family": "ipv6", "source": addresses["data"]["ipv6"]}
    assert inside("data", "site", "tcp/22", **exempt) == {"tcp/22": "open"}
    assert "/64" in host.check_output("nft list table inet f2b-table")
    assert outside("site", "tcp/22") == {"tcp/22": "open"}
    assert "priority filter - 1" in host.check_output("nft list table inet f2b-table")

    host.check_output("fail2ban-client unban %s", STRANGER)
    assert "Permission denied" in stranger()


def test_no_line_of_sshd_is_left_out(host):
    """Journald's own limit, `base_journal_rate_limit`, is 300 in 30 seconds here."""
    limit = "/run/systemd/units/log-rate-limit-burst:ssh.service"
    assert int(host.check_output(f"readlink {limit}")) == 100_000


@pytest.mark.parametrize("unit", ["ssh", "fail2ban"])
def test_they_come_back_however_often_they_fail(host, unit):
    names = "StartLimitIntervalUSec,Restart,RestartPreventExitStatus"
    assert set(host.check_output(f"systemctl show {unit} --property={names}").split()) == {
        "StartLimitIntervalUSec=0",
        "Restart=on-failure",
        "RestartPreventExitStatus=",
    }


def test_neither_the_controller_nor_a_host_is_banned(host, hosts, banned, addresses):
    """Each fails as often as would do for anybody else."""
    controller = json.loads(host.check_output("ip -json route show default"))[0]["gateway"]
    command = SSH.format("", addresses["site"]["ipv4"])
    for _ in range(4):
        tried = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        assert "Permission denied" in tried.stderr
        hosts["data"].run(f"{command} || false")
    for address in (controller, addresses["data"]["ipv4"]):
        wait_for(lambda address=address: told(host, f"[sshd] Ignore {address} "), 20)
    assert banned("sshd") == []


def told(host, words):
    """Tell whether fail2ban has said this."""
    return words in host.check_output("journalctl --unit=fail2ban --boot --output=cat")


def test_who_scans_the_site_is_banned_from_it_with_the_network(write, banned, inside, hosts):
    """Three addresses of a /64 ask once each: a fourth is refused, one of another /64 is not."""
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
        met = inside("data", "site", *places, family="ipv6", source=scanners[3])
        other = inside("data", "site", *places, family="ipv6", source=another)
    finally:
        for address in (scanners[3], another):
            data.check_output(f"ip -6 address del {address}/64 dev eth0")
    refused = "ConnectionRefusedError"
    assert met == {"tcp/80": refused, "udp/443": refused, "tcp/22": "open"}
    assert other == dict.fromkeys(places, "open")


def test_bursts_of_refusals_and_unknown_names_are_banned(write, banned):
    write("nginx_shop", [line("/login", 403, upstream_status="403"), line("/login", 429)] * 3)
    write("nginx_refused", [line(status=444)] * 4, level=INFO)
    wait_for(lambda: banned("shop-denied") == [CLIENT], 20)
    wait_for(lambda: banned("nginx-refused") == [CLIENT], 20)
    assert banned("shop-probes") == []


def test_only_what_is_meant_counts(write, banned, found):
    """The last line is the sign that all before it were read."""
    posing = '"},{"remote_addr":"203.0.113.5","uri":"/.env","status":404,"x":"'
    harmless = [
        line("/.env", 200),
        line("/environment"),
        line("/blog/2026/php"),
        line("/index.php?id=3"),
        line("/wp-content/uploads/2019/a.jpg"),
        line("/autodiscover/autodiscover.xml"),
        line("/.env", forwarded_for="203.0.113.5"),  # by a proxy that nobody declared
        line("/.env", client="fd00:f1a5::2"),  # the other host, whose network is not to blame
        line("/ok", 400, user_agent=posing),
        line('/.env?"","status":404,"', 200),
    ]
    before = found("shop-probes")
    write("nginx_shop", harmless)
    write("nginx_shop", [line("/.env")] * 5, unit="other")
    write("nginx_shop", [line("/.env", client="198.51.100.8")])
    wait_for(lambda: found("shop-probes") > before, 20)
    assert found("shop-probes") == before + 1
    assert banned("shop-probes") == []


def test_what_clients_do_by_themselves_is_no_abuse(write, banned, found):
    """They are told to log in, and what nginx answers to one who is banned is no new deed."""
    before = found("shop-denied")
    write("nginx_shop", [line("/login", 401), line("/login", 403)] * 10)
    write("nginx_shop", [line("/login", 429, client="198.51.100.9")])
    wait_for(lambda: found("shop-denied") > before, 20)
    assert found("shop-denied") == before + 1
    assert banned("shop-denied") == []


def test_behind_a_load_balancer_nginx_bans(host, write, banned):
    folder = host.file(f"/run/flaskstack/banned/blog/{CLIENT}")
    write("nginx_blog", [line("/.env", app="blog")] * 3)
    write("nginx_blog", [line("/login", 429, app="blog")] * 6)
    wait_for(lambda: banned("blog-probes") == banned("blog-denied") == [CLIENT], 20)
    assert folder.is_directory
    network = [line("/.env", app="blog", client=f"2001:db8:1::{number}") for number in (1, 2, 3)]
    write("nginx_blog", network)
    # As nginx may find the first 64 bits written: see tests/nginx.
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


def test_the_load_balancer_of_one_app_is_banned_by_none(host):
    ignored = {jail: host.check_output("fail2ban-client get %s ignoreip", jail) for jail in JAILS}
    assert all("192.0.2.80" in addresses for addresses in ignored.values()), ignored


JAILS = ("sshd", "nginx-refused", "shop-probes", "blog-probes")


def test_apps_of_one_host_have_jails_of_their_own(host, play):
    """The first app's inventory has the say about logins."""
    assert host.check_output("fail2ban-client get sshd maxretry") == "3"
    done = play("remove_bans")
    assert done.code == 0, done.output
    status = host.check_output("fail2ban-client status")
    assert "shop-probes" in status
    assert "blog-probes" not in status
    assert play("fail2ban", "--limit=site").code == 0
    assert "blog-probes" in host.check_output("fail2ban-client status")
