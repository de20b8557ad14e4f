"""The host behaves as role base was asked to make it."""

import json

# What journald says of its limits whenever it opens a journal.
JOURNAL_USAGE = "MESSAGE_ID=ec387f577b844b8fa948f33cad9a75e6"


def test_clock_shows_the_time_zone(host):
    assert host.check_output("date +%Z") == "JST"
    assert host.check_output("cat /etc/timezone") == "Asia/Tokyo"


def test_time_is_synchronised_wherever_the_clock_is_the_hosts_own(host):
    assert host.service("systemd-timesyncd").is_enabled


def test_nothing_failed_although_this_is_a_container(host):
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_listening_sockets_may_queue_as_many_as_asked(host):
    assert host.sysctl("net.core.somaxconn") == 5000


def test_a_container_leaves_the_machines_kernel_alone(host):
    assert host.sysctl("vm.swappiness") != 11
    settings = host.check_output("cat /etc/sysctl.d/*.conf").splitlines()
    assert [line for line in settings if line.startswith(("vm.", "-vm."))] == []


def test_a_container_gets_no_swap_file(host):
    assert not host.file("/swapfile").exists
    assert not host.service("swapfile.swap").exists


def test_journal_is_on_disk_and_limited(host):
    entries = host.check_output(
        "journalctl --directory=/var/log/journal --output=json --lines=1 %s", JOURNAL_USAGE
    )
    assert int(json.loads(entries)["MAX_USE"]) == 64 * 1024 * 1024


def test_a_unit_that_floods_the_journal_is_cut_short(host):
    unit = host.check_output("systemd-escape flood-$(date +%%N)")
    host.check_output("systemd-run --wait --unit=%s seq 20000", unit)
    host.check_output("journalctl --sync")

    logged = host.check_output("journalctl --unit=%s --output=cat", unit).splitlines()
    assert "1" in logged
    assert len(logged) < 2000
