"""A site under constant load on a host whose database has a small disk."""

from __future__ import annotations

import pytest

from helpers.clients import Site
from helpers.faults import PRELUDE, table
from helpers.load import Load
from helpers.wait import wait_for

RESULTS = pytest.StashKey[dict]()
RATE = 20  # requests per second; also enough to interrupt some of them
# The database's directory on a file system with 200 MiB of free space, and back.
SMALL_DISK = """place=/mnt/fault; data=/var/lib/mysql
systemctl stop mariadb; install -d $place
disk fault-mysql $(($(du -sm $data | cut -f1) + 230)) $place
cp -a $data/. $place; chown --reference=$data $place; mount --bind $place $data
systemctl start mariadb"""
USUAL_DISK = """place=/mnt/fault; data=/var/lib/mysql
systemctl stop mariadb; umount $data
find $data -mindepth 1 -delete; cp -a $place/. $data; umount $place; rm /var/tmp/fault-mysql
systemctl start mariadb"""


@pytest.fixture(scope="module")
def small_disk(host, address):
    """Run the database on a small disk, and wait until the site is ready, before and after."""
    site = Site(address, "localhost")
    host.check_output(PRELUDE + SMALL_DISK)
    wait_for(lambda: site.get("/readyz").status_code == 200, 30)
    yield
    host.check_output(PRELUDE + USUAL_DISK)
    wait_for(lambda: site.get("/readyz").status_code == 200, 30)


@pytest.fixture(scope="module")
def load(address, small_disk):
    """Yield the load, which runs throughout; at the end print its latencies."""
    with Load(f"http://{address}", "localhost", RATE, writes=0.25, timeout=20) as load:
        yield load
    print(load.report())


@pytest.fixture(scope="module")
def finished(load):
    """Return the load after its last answer."""
    load.__exit__()
    return load


@pytest.fixture
def diagnostics(site, environment):
    """Return a function that sends a request with the diagnostics key."""
    key = {"X-Api-Key": environment["DIAGNOSTICS_KEY"]}
    return lambda method, path, **options: site.request(method, path, headers=key, **options)


@pytest.fixture
def results(request):
    """Return the results by fault, which are printed at the end."""
    return request.config.stash.setdefault(RESULTS, {})


@pytest.fixture(scope="module")
def windows():
    """Return when each fault began and ended, in seconds since 1970."""
    return {}


def pytest_terminal_summary(terminalreporter, config):
    """Print the table of docs/faults.md."""
    if measured := config.stash.get(RESULTS, {}):
        terminalreporter.section("faults")
        terminalreporter.write_line(table(measured.values()))
