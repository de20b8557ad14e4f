"""Each host is the Debian that it is named after, and came up whole."""


def test_runs_the_release_it_is_named_after(host):
    names = host.check_output("cat /etc/os-release")
    release = host.backend.get_hostname()
    assert f"VERSION_CODENAME={release}" in names or (release == "sid" and "/sid" in names)


def test_every_unit_started(host):
    assert host.run("systemctl is-system-running").stdout.strip() == "running"
