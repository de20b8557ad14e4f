"""Each host runs the Debian release of its name, and all units have started."""


def test_host_runs_the_release_of_its_name(host):
    names = host.check_output("cat /etc/os-release")
    release = host.backend.get_hostname()
    assert f"VERSION_CODENAME={release}" in names or (release == "sid" and "/sid" in names)


def test_all_units_started(host):
    assert host.run("systemctl is-system-running").stdout.strip() == "running"
