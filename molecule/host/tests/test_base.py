"""The settings of role base are in effect."""

import json
import re

import pytest

from helpers import sysctl
from helpers.clients import journal
from helpers.wait import wait_for

# journald's log message about its limits.
JOURNAL_USAGE = "MESSAGE_ID=ec387f577b844b8fa948f33cad9a75e6"


def test_time_zone_and_synchronization(host):
    assert host.check_output("date +%Z") == "JST"
    assert host.check_output("cat /etc/timezone") == "Asia/Tokyo"
    assert host.service("dbus.socket").is_running  # for timedatectl
    assert host.service("systemd-timesyncd").is_enabled


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


def test_a_container_gets_network_settings_and_no_swap_file(host):
    assert host.sysctl("net.core.somaxconn") == 5000
    assert host.sysctl("vm.swappiness") != 11
    assert not host.file("/swapfile").exists


@pytest.fixture
def remove_swap(host):
    """Remove the swap file after the test."""
    yield
    host.check_output(
        "systemctl disable swapfile.swap && systemctl stop swapfile.swap swapfile.service"
        " && rm -f /etc/systemd/system/swapfile.* /swapfile"
        " && systemctl daemon-reload && systemctl reset-failed"
    )


@pytest.mark.usefixtures("only_site", "remove_swap")
def test_the_swap_file_is_recreated_in_another_size(host, play):
    """Only the file is checked: systemd does not support swap units in a container."""
    host.check_output("truncate --size 8M /swapfile")
    done = play("swap", base_swap_size=16)
    assert done.code == 0 or done.says("swapfile.swap not supported on this system"), done.output
    file = host.file("/swapfile")
    assert (file.user, file.mode, file.size) == ("root", 0o600, 16 * 2**20)
    assert 'TYPE="swap"' in host.check_output("blkid --probe /swapfile")
    units = "swapfile.swap swapfile.service"
    assert host.check_output(f"systemd-analyze verify --man=no {units} 2>&1") == ""
    before = host.check_output("stat --format '%i %y' /swapfile")
    host.check_output("systemctl start swapfile.service")
    assert host.check_output("stat --format '%i %y' /swapfile") == before


def test_the_journal_is_persistent_and_limited(host):
    entries = host.check_output(
        "journalctl --directory=/var/log/journal --output=json --lines=1 %s", JOURNAL_USAGE
    )
    assert int(json.loads(entries)["MAX_USE"]) == 64 * 1024 * 1024


def test_the_journal_rate_limit(host):
    unit = host.check_output("systemd-escape flood-$(date +%%N)")
    host.check_output("systemd-run --wait --unit=%s seq 20000", unit)
    host.check_output("journalctl --sync")

    logged = host.check_output("journalctl --unit=%s --output=cat", unit).splitlines()
    assert "1" in logged
    assert len(logged) < 2000


def test_only_security_upgrades_would_be_installed(host):
    """unattended-upgrade reads its settings and the package sources in a dry run."""
    done = host.run("unattended-upgrade --dry-run --debug 2>&1")
    assert done.rc == 0, done.stdout
    origins = re.search(r"Allowed origins are: (.*)", done.stdout).group(1)
    assert "label=Debian-Security" in origins
    for origin in origins.split(", origin=")[1:]:
        assert "security" in origin.lower()
    assert re.search(r"blacklist.*: mariadb-", done.stdout)


def test_the_time_of_upgrades(host):
    timer = host.check_output("systemctl show --property TimersCalendar apt-daily-upgrade.timer")
    assert "*-*-* 04:15:00" in timer
    assert "06:00" not in timer
    assert host.service("apt-daily-upgrade.timer").is_running


def test_services_with_outdated_libraries_are_restarted(host):
    settings = "do '/etc/needrestart/needrestart.conf'; print $nrconf{restart}"
    assert host.check_output("perl -e %s", f"our %nrconf; {settings}") == "a"
    assert host.run("needrestart -b -k -l").rc == 0


# Keeps a deleted library mapped, as after an upgrade.
OUTDATED = """
import mmap, os, signal, sys
library = f"/usr/local/lib/{os.getpid()}.so"
open(library, "wb").write(bytes(4096))
with open(library) as file:
    kept = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
os.remove(library)
signal.pause()
"""


def test_timed_jobs_and_transient_units_are_not_restarted(host):
    """Only the service restarts, not the timed job or the transient unit, such as a migration."""
    units = {
        "outdated": "Type=exec",
        "shop-nightly": "Type=oneshot",
    }
    host.check_output("printf %s >/root/outdated.py", OUTDATED)
    for name, kind in units.items():
        text = f"[Service]\n{kind}\nExecStart=python3 /root/outdated.py\n"
        host.check_output(f"printf %s >/etc/systemd/system/{name}.service", text)
    run = "systemd-run --quiet --collect --unit=shop.run-1-0 python3 /root/outdated.py"
    host.check_output(
        f"systemctl daemon-reload; {run}; systemctl start --no-block {' '.join(units)}"
    )
    names = [*units, "shop.run-1-0"]

    def process_ids():
        show = "systemctl show --property=ExecMainPID --value "
        return [host.check_output(f"{show}{name}") for name in names]

    try:
        ready = "test $(grep -l 'local/lib/.*so (deleted)' /proc/[0-9]*/maps | wc -l) = 3"
        wait_for(lambda: host.run(ready).rc == 0, 20)
        before = process_ids()
        output = host.check_output("needrestart -l -r a 2>&1 </dev/null")
        after = process_ids()
    finally:
        host.run(f"systemctl stop {' '.join(names)}; rm /root/outdated.py")
        host.run("cd /etc/systemd/system; rm outdated.service shop-nightly.service")
        host.run("systemctl daemon-reload; systemctl reset-failed")
    assert after[0] != before[0], output
    assert after[1:] == before[1:], output


@pytest.mark.usefixtures("only_site")
def test_the_package_check_detects_a_changed_file(host):
    assert host.service("package-check.timer").is_enabled
    assert host.run("systemctl start package-check.service").rc == 0
    file = "/usr/share/perl5/Debian/AdduserCommon.pm"
    file = file if host.file(file).exists else host.check_output("dpkg -L adduser | grep /sbin/a")
    host.check_output("cp --archive %s /root/kept && echo '# changed' >>%s", file, file)
    try:
        assert host.run("systemctl start package-check.service").rc != 0
        assert file in host.check_output("journalctl --unit=package-check --output=cat")
    finally:
        host.check_output("mv /root/kept %s && systemctl reset-failed", file)


def test_core_dumps_are_disabled(host):
    crash = "systemd-run --wait --quiet --property WorkingDirectory=/tmp sh -c"
    assert host.run(f"{crash} 'ulimit -c >/tmp/core-limit; kill -SEGV $$'").rc != 0
    assert host.check_output("cat /tmp/core-limit; rm /tmp/core-limit") == "0"
    assert host.run("ls /tmp/core*").rc != 0
    assert host.check_output("su --login deploy --command %s", "ulimit -Hc") == "0"


def test_umask_and_idle_timeout_of_login_shells(host):
    output = host.check_output("su --login deploy --command %s", "umask; echo $TMOUT")
    assert output.split() == ["0027", "900"]
    assert host.run("su --login deploy --command %s", "TMOUT=0").rc != 0


def test_modules_are_blocked(host):
    for name in ("dccp", "usb-storage"):
        assert host.file("/etc/modprobe.d/flaskstack.conf").contains(f"^install {name} /bin/false$")


def test_network_settings_hold_on_every_interface(host):
    """They override patterns for all interfaces in other files, and apply to new interfaces."""
    other = "/usr/lib/sysctl.d/50-other.conf"
    patterns = "net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.all.rp_filter\n"
    host.check_output(f"mkdir -p /usr/lib/sysctl.d; printf %s >{other}", patterns)
    host.check_output("ip link add later type veth peer name later2")
    try:
        host.check_output("systemctl restart systemd-sysctl")
        assert sysctl.wrong(host) == []
    finally:
        host.check_output(f"ip link delete later; rm {other}")


def test_weak_passwords_are_refused(host):
    answer = host.run("echo 'deploy:password1' | chpasswd")
    assert answer.rc != 0
    assert "Weak password" in answer.stderr


def test_the_login_banner_has_no_version(host):
    for file in ("/etc/issue", "/etc/issue.net"):
        assert "authorized" in host.file(file).content_string
        assert "Debian" not in host.file(file).content_string


@pytest.fixture
def failing(host):
    """Yield the name of a service that fails; it is removed after the test."""
    unit = "/etc/systemd/system/failing.service"
    lines = "[Service]\\nType=oneshot\\nExecStart=/bin/false\\n"
    host.check_output(f"printf '{lines}' >{unit} && systemctl daemon-reload")
    yield "failing.service"
    host.check_output(f"rm {unit} /run/flaskstack-failures/failing.service")
    host.check_output("systemctl daemon-reload && systemctl reset-failed")


def test_a_failed_service_is_reported(host, failing):
    """Each failure is in the journal; command and webhook get the first one of an hour."""
    text = f"{failing}: exited with status 1. It stays stopped."
    errors = "journalctl --boot -t flaskstack-failure -p err --output cat"

    def reports(file):
        lines = host.check_output("cat %s", file).splitlines()
        return [event for event in map(json.loads, lines) if event["unit"] == failing]

    def fail(number):
        def is_reported():
            state = host.run("systemctl is-active %s", report).stdout.strip()
            return state == "inactive" and host.check_output(errors).count(text) == number

        assert host.run("systemctl start %s", failing).rc != 0
        wait_for(is_reported)

    report = f"flaskstack-failure@{failing}.service"
    sent, logged = len(reports("/run/webhook")), host.check_output(errors).count(text)
    fail(logged + 1)
    fail(logged + 2)
    (event,) = reports("/run/webhook")[sent:]
    assert event["text"] == f"{host.check_output('hostname')}: {text}"
    assert reports("/run/failures")[-1] == event
    assert journal(host, report, grep=lambda line: text in line)


def test_a_failed_command_of_the_operator_is_not_reported(host):
    command = "systemd-run --wait --unit=failed-command /bin/false"
    assert host.run(command).rc != 0
    host.check_output("systemctl reset-failed failed-command.service")
    reports = host.check_output("journalctl --boot -t flaskstack-failure --output cat")
    assert "failed-command.service: " not in reports
