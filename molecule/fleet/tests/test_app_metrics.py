"""The app's metrics are counted over all of Gunicorn's processes, and are not public."""

import re

import pytest

from helpers.wait import wait_for

testinfra_hosts = ["ansible://app-1"]

FOLDER = "/run/sample/metrics-*"


@pytest.fixture
def counted(get, address):
    """Return a function that returns how many requests the app has counted."""

    def counted() -> float:
        text = get(f"http://{address}:9101/metrics")
        found = re.findall(r"^guestbook_requests_total\{.*\} (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    return counted


def workers(host):
    main = host.check_output("systemctl show --value --property=MainPID 'sample-web@*.service'")
    return set(host.check_output("pgrep --parent %s", main.split()[0]).split())


def owners(host):
    """Return the processes that the files of metrics belong to."""
    files = host.check_output(f"ls {FOLDER}").split()
    return set(re.findall(r"_(\d+)\.db", " ".join(files)))


def test_counts_survive_killed_workers(host, site, counted):
    for _ in range(20):
        assert site.get("/whoami").status_code == 200
    before = counted()
    assert before >= 20
    first = workers(host)
    host.check_output(f"kill -KILL {' '.join(first)}")
    wait_for(lambda: site.get("/whoami").status_code == 200, 30)
    wait_for(lambda: owners(host) <= workers(host) - first, 30)
    assert before < counted() < before + 20


def test_metrics_are_not_public(site):
    for path in ("/metrics", "/metrics/", "/%6Detrics", "//metrics"):
        answer = site.get(path)
        assert answer.status_code == 404
        assert "guestbook" not in answer.text
