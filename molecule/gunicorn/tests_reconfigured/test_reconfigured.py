"""Changed settings have reached the running processes."""

import uuid

import pytest
import requests


@pytest.fixture
def waves(address):
    """Give `waves(path)`: what the other app answers now."""
    headers = {"X-Forwarded-For": "192.0.2.7"}
    return lambda path: requests.get(
        f"http://{address}:81{path}", headers=headers, timeout=10
    ).json()


def test_workers(processes):
    assert len(processes()) == 1 + 3


def test_environment(get):
    assert get("/environment")["GREETING"] == "hello again"


def test_gunicorns_own_settings(address):
    assert requests.get(f"http://{address}/{'x' * 200}", timeout=10).status_code == 414


def test_sandbox(host, get):
    name = f"/var/lib/probe/{uuid.uuid4()}"
    get("/write", file=name)
    assert host.file(name).mode == 0o600


def test_process_has_its_new_environment(host, unit):
    pid = unit("probe-clock@1.service", "MainPID")
    assert "COLOUR=blue" in host.check_output("tr '\\0' '\\n' </proc/%s/environ", pid).splitlines()


def test_instance_too_many_is_stopped(unit):
    assert unit("probe-clock@2.service", "ActiveState") == "inactive"


def test_process_that_is_declared_no_more_is_gone(host, unit):
    assert unit("probe-bell@1.service", "ActiveState") == "inactive"
    assert host.run("systemctl cat probe-bell@1.service").rc != 0


def test_changed_file_has_reached_the_app(waves):
    assert waves("/")["sea"] == "pacific"


def test_worker_class(waves):
    assert waves("/")["patched"] is False


def test_proxy_is_trusted_no_more(waves):
    assert waves("/where")["address"] != "192.0.2.7"


def test_file_that_is_declared_no_more_is_gone(host):
    assert host.check_output("cd /etc/waves/current/files; find * -type f") == "local.py"
