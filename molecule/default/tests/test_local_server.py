"""A local server behaves like a small cloud server."""


def test_every_unit_started(host):
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_it_has_a_machine_id(host):
    assert len(host.check_output("cat /etc/machine-id")) == 32
