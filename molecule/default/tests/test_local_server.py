"""A local server behaves as a small cloud server does."""


def test_every_unit_started(host):
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_has_a_machine_id_of_its_own(host):
    assert len(host.check_output("cat /etc/machine-id")) == 32
