"""A site under constant load, and the results of the faults."""

from __future__ import annotations

import pytest

from helpers.faults import TIMEOUT, table
from helpers.load import Load

RESULTS = pytest.StashKey[dict]()
RATE = 20  # requests per second; also enough to interrupt some of them


@pytest.fixture(scope="module")
def load(address):
    """Yield the load, which runs throughout; at the end print its latencies."""
    with Load(f"http://{address}", "localhost", RATE, writes=0.25, timeout=TIMEOUT) as load:
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
def fault(host, request):
    """Return a fault, unless the host cannot have it."""
    fault = request.param
    if fault.skip:
        pytest.skip(fault.skip)
    if fault.needs and host.run(fault.needs).rc != 0:
        pytest.skip(fault.lacks)
    return fault


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
