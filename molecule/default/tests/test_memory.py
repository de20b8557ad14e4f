"""Memory limits of the units, and the order in which the kernel kills them."""

from __future__ import annotations

import pytest

from helpers.clients import children, live_web, main_pid
from helpers.plans import host as of_size
from helpers.plans import planned

MIB = 1024**2
LIMIT = planned(one=of_size(2048, 2))["one"]["plan"]["gunicorn_memory_limit"] * MIB
DATABASE = ("mariadb.service", "redis-server@sample-queue.service")


def properties(host, unit):
    """Return the memory properties of a unit."""
    names = "MemoryHigh,MemoryMax,MemorySwapMax,OOMScoreAdjust,OOMPolicy,Restart"
    lines = host.check_output("systemctl show --property=%s %s", names, unit).splitlines()
    return dict(line.split("=", 1) for line in lines)


def score(host, pid):
    """Return the OOM score adjustment of a process."""
    return int(host.check_output(f"cat /proc/{pid}/oom_score_adj"))


@pytest.mark.parametrize("unit", ["sample.slice", "web", "sample-worker@1.service"])
def test_the_app_has_the_memory_limit_of_the_plan(host, unit):
    found = properties(host, live_web(host, "sample") if unit == "web" else unit)
    assert int(found["MemoryMax"]) == LIMIT
    assert LIMIT * 0.96 < int(found["MemoryHigh"]) < LIMIT
    assert LIMIT / 4 - MIB < int(found["MemorySwapMax"]) <= LIMIT / 2


@pytest.mark.parametrize("unit", [*DATABASE, "redis-server@sample-cache.service", "nginx.service"])
def test_no_service_can_use_all_memory(host, unit):
    found = properties(host, unit)
    memory = int(host.check_output("awk '/MemTotal/ {print $2}' /proc/meminfo")) * 1024
    assert 0 < int(found["MemoryHigh"]) < int(found["MemoryMax"]) < memory
    assert found["Restart"] in ("always", "on-failure")
    rate = "StartLimitIntervalUSec"
    assert host.check_output("systemctl show --property=%s --value %s", rate, unit) == "0"


def test_workers_are_killed_first_and_the_database_last(host):
    web = main_pid(host, live_web(host, "sample"))
    (worker, *_) = children(host, web)
    data = [int(properties(host, unit)["OOMScoreAdjust"]) for unit in DATABASE]
    process = score(host, main_pid(host, "sample-worker@1.service"))
    assert max(data) < 0 < score(host, web) < process < score(host, worker)


def test_a_process_over_the_limit_is_killed_alone(host, site):
    controllers = host.run("cat /sys/fs/cgroup/cgroup.controllers").stdout.split()
    if "memory" not in controllers:
        pytest.skip("this host has no memory controller")
    web = main_pid(host, live_web(host, "sample"))
    before = children(host, web)
    size = LIMIT + LIMIT // 2 + 200 * MIB
    command = "flaskstack sample run python -c %s"
    assert host.run(command, f"held = b'x' * {size}").rc != 0
    assert site.get("/readyz").status_code == 200
    assert children(host, web) == before
