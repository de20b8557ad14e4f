"""A local server behaves as a small cloud server does."""

import requests


def test_every_unit_started(host):
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_runs_the_release_it_is_named_after(host):
    names = host.check_output("cat /etc/os-release")
    release = host.backend.get_hostname()
    assert f"VERSION_CODENAME={release}" in names or (release == "sid" and "/sid" in names)


def test_services_answer_from_outside(host, address):
    assert "nginx" in requests.get(f"http://{address}", timeout=5).text


def test_reaches_the_package_index(host):
    host.check_output("python3 -m pip download --quiet --no-deps --dest /tmp/index six")


def test_has_a_machine_id_of_its_own(host):
    assert len(host.check_output("cat /etc/machine-id")) == 32
