"""Running processes use the changed settings."""

import uuid

import pytest
import requests


@pytest.fixture
def waves(responses):
    """Return `waves(path)`, which returns the JSON of the second app's response."""
    get = responses(81)
    return lambda path: get(path, {"X-Forwarded-For": "192.0.2.7"})


def test_workers(processes):
    assert len(processes()) == 1 + 3


def test_environment(get):
    assert get("/environment")["GREETING"] == "hello again"


def test_gunicorn_settings(address):
    assert requests.get(f"http://{address}/{'x' * 200}", timeout=10).status_code == 414


def test_sandbox(host, get):
    name = f"/var/lib/probe/{uuid.uuid4()}"
    get("/write", file=name)
    assert host.file(name).mode == 0o600


def test_process_has_its_new_environment(host, unit):
    pid = unit("probe-clock@1.service", "MainPID")
    assert "COLOUR=blue" in host.check_output("tr '\\0' '\\n' </proc/%s/environ", pid).splitlines()


def test_surplus_instance_is_stopped(unit):
    assert unit("probe-clock@2.service", "ActiveState") == "inactive"


def test_removed_process_is_stopped(host, unit):
    assert unit("probe-bell@1.service", "ActiveState") == "inactive"
    assert host.run("systemctl cat probe-bell@1.service").rc != 0


def test_app_reads_the_changed_file(waves):
    assert waves("/")["sea"] == "pacific"


def test_worker_class(waves):
    assert waves("/")["patched"] is False


def test_proxy_fix_is_removed(waves):
    assert waves("/where")["address"] != "192.0.2.7"


def test_undeclared_file_is_removed(host):
    assert host.check_output("cd /etc/waves/current/files; find * -type f") == "local.py"
