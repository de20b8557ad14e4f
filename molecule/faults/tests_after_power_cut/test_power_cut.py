"""After a power cut all units start automatically, and no acknowledged write or job is missing."""

from __future__ import annotations

import pytest

from helpers.clients import live_web
from helpers.wait import wait_for

UNITS = (
    *("nginx", "mariadb", "redis-server@sample-cache", "redis-server@sample-queue", "fail2ban"),
    *("sample-worker@1", "sample-scheduler@1", "sample.target"),
)


@pytest.fixture(scope="module")
def up(host):
    """Wait until systemd has started all units."""
    return wait_for(lambda: host.run("systemctl is-system-running").stdout.strip() == "running", 90)


@pytest.mark.usefixtures("up")
def test_the_site_answers_and_all_units_run(host, site):
    wait_for(lambda: site.get("/readyz").status_code == 200, 60)
    states = host.run(f"systemctl is-active {' '.join(UNITS)} {live_web(host, 'sample')}").stdout
    assert set(states.split()) == {"active"}


@pytest.mark.usefixtures("up")
def test_every_acknowledged_write_and_job_is_there(sql):
    written = "FROM sample.notes WHERE body LIKE 'Before the cut %'"
    assert sql.value(f"SELECT COUNT(*) {written}") == "20"
    # Four words each.
    wait_for(lambda: sql.value(f"SELECT COUNT(*) {written} AND word_count = 4") == "20", 120)


@pytest.fixture
def started(host):
    """Return a function that returns how many seconds after the boot a unit was active."""

    def value(name, unit=""):
        command = f"systemctl show --value --property {name}TimestampMonotonic {unit}"
        return int(host.check_output(command)) / 1e6

    return lambda unit: value("ActiveEnter", unit) - value("Userspace")


@pytest.mark.usefixtures("up")
def test_units_start_in_order_and_soon(host, started):
    """The database and Redis are up before the app and its worker."""
    first = max(started(f"{unit}.service") for unit in UNITS[1:4])
    last = [started(live_web(host, "sample")), started("sample-worker@1.service")]
    assert first <= min(last)
    assert max(last) < 30
