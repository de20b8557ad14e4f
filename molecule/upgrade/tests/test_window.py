"""In the restart window, newer servers and libraries take effect while requests wait."""

from __future__ import annotations

import pytest

from helpers.clients import journal, live_web, main_pid
from helpers.load import Load
from helpers.wait import wait_for

RATE = 10  # requests per second
UNITS = ("mariadb", "redis-server@sample-cache", "redis-server@sample-queue")
# A source of security upgrades with a newer version of the installed package.
NEWER = r"""set -eu; umask 022
install -d /srv/newer; cd /srv/newer
archived=$(apt-cache madison mariadb-server | head -n 1 | cut -d '|' -f 2 | tr -d ' ')
apt-get --quiet download "mariadb-server=$archived"
dpkg-deb --raw-extract mariadb-server_*.deb tree
sed -i "/^Version:/ s/\$/+newer$(date +%s)/" tree/DEBIAN/control
dpkg-deb --build -Znone tree newer.deb
rm -r tree mariadb-server_*.deb
sum() { sha256sum "$1" | cut -d' ' -f1; }
size() { stat --format %s "$1"; }
{
    dpkg-deb --field newer.deb
    printf 'Filename: ./newer.deb\nSize: %s\nSHA256: %s\n' "$(size newer.deb)" "$(sum newer.deb)"
} >Packages
. /etc/os-release
{
    printf 'Origin: Debian\nLabel: Debian-Security\nCodename: %s-security\n' "$VERSION_CODENAME"
    printf 'SHA256:\n %s %s Packages\n' "$(sum Packages)" "$(size Packages)"
} >Release
apt-get --quiet install --yes --no-install-recommends gpg gpg-agent
export GNUPGHOME=/srv/newer/keys
install -d -m 0700 "$GNUPGHOME"
gpg --batch --passphrase '' --quick-generate-key test ed25519 sign
gpg --clearsign --output InRelease Release
gpg --export --output key.gpg
gpgconf --kill all
echo 'deb [signed-by=/srv/newer/key.gpg] file:/srv/newer ./' >/etc/apt/sources.list.d/newer.list
apt-get --quiet update"""
# A library whose file was replaced, as by an upgrade.
LIBRARY = """set -eu
file=$(readlink --canonicalize "$(ldconfig -p | sed -n 's/.*=> //p' | grep -m1 libssl.so)")
cp --archive "$file" /root/library; mv /root/library "$file"
"""


@pytest.fixture
def newer(host):
    """Return the newer version of mariadb-server, which the package sources offer."""
    host.check_output(NEWER)
    yield host.check_output("dpkg-deb --field /srv/newer/newer.deb Version")
    host.check_output("rm -r /srv/newer /etc/apt/sources.list.d/newer.list")


@pytest.fixture
def window(host, address):
    """Return a function that runs the restart window under load, and returns the load."""

    def run():
        with Load(f"http://{address}", "localhost", RATE, writes=0.25, timeout=120) as load:
            host.check_output("systemctl start restart-window.service")
            wait_for(lambda: host.service(live_web(host, "sample")).is_running, 60)
        print(load.report())
        return load

    return run


def pids(host):
    return {unit: main_pid(host, unit) for unit in UNITS}


def starts(host, since):
    """Return how often the database has started since a time."""
    return len(journal(host, "mariadb", since=since, grep=lambda s: "ready for connections" in s))


def test_a_newer_server_is_installed_in_the_window(host, newer, window, sql):
    version = "dpkg-query --show --showformat '${Version}' mariadb-server"
    before, since = pids(host), host.check_output("date '+%F %T'")
    output = host.check_output("unattended-upgrade --verbose 2>&1")
    assert host.check_output(version) != newer, output
    assert pids(host) == before, output

    load = window()
    assert host.check_output(version) == newer
    assert starts(host, since) == 1
    assert load.failed == []
    rows = load.rows(row[0] for row in sql.rows(f"USE sample; {load.statement}"))
    assert (rows.lost, rows.doubled) == ([], [])


def test_a_newer_library_is_loaded_in_the_window(host, window):
    before, since = pids(host), host.check_output("date '+%F %T'")
    host.check_output(LIBRARY)
    output = host.check_output("needrestart -r a </dev/null 2>&1")
    assert pids(host)["mariadb"] == before["mariadb"], output

    load = window()
    assert starts(host, since) == 1
    assert all(pids(host)[unit] != before[unit] for unit in UNITS)
    assert load.failed == []
