"""Sandbox and egress rules of the app and its commands; molecule/security tests a whole site."""

import json
import shlex

import pytest

from helpers.audits import exposure
from helpers.clients import live_web
from helpers.wait import wait_for

UNITS = ["probe-clock@1.service", "probe-often.service", "waves-web@a.service"]
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3)
except OSError as error:
    print(type(error).__name__, error)
else:
    print("connected")
"""


@pytest.mark.parametrize("unit", UNITS)
def test_units_are_sandboxed(host, unit):
    assert exposure(host.check_output, unit) <= 1.5
    assert exposure(host.check_output, live_web(host, "probe")) <= 1.5


def test_commands_have_the_sandbox_of_the_app(host):
    host.check_output("systemd-run --quiet --unit=asks --collect flaskstack probe run sleep 20")
    running = "systemctl list-units --plain --no-legend --state=running 'probe.run-*'"
    wait_for(lambda: host.check_output(running))
    unit = host.check_output(running).split()[0]
    assert exposure(host.check_output, unit) == exposure(host.check_output, UNITS[0])
    assert host.check_output("systemctl show --property=Slice --value %s", unit) == (
        "probe-commands.slice"
    )
    host.check_output("systemctl stop %s", unit)


def test_written_files_are_not_executable(host):
    copy = "cp /bin/true {0}/true && {0}/true; echo $?; rm -f {0}/true"
    for folder in ("/var/lib/probe", "/tmp", "/var/cache/probe-tmp", "/dev/shm"):
        assert host.check_output("flaskstack probe run sh -c %s", copy.format(folder)) == "126", (
            folder
        )


def test_all_processes_share_a_tmp_on_disk(host, get):
    """Web and background processes have the same /tmp, on disk and private to the app."""
    assert "pid" in get("/write", file="/tmp/upload")
    command = "cat /tmp/upload /var/tmp/upload; stat -fc %T /tmp; ls -ld /tmp"
    shown = host.check_output("flaskstack probe run sh -c %s", command).splitlines()
    assert shown[:2] == ["written", "written"]
    assert shown[2] != "tmpfs"
    assert shown[3].startswith("drwx------")
    worker = host.check_output("systemctl show --property=MainPID --value %s", UNITS[0])
    assert host.file(f"/proc/{worker}/root/tmp/upload").content_string == "written\n"
    assert not host.file("/tmp/upload").exists
    assert host.run("runuser --user waves -- ls /var/cache/probe-tmp").rc == 2


def test_names_in_use_on_the_host_are_rejected(host):
    """site.yml runs this check before its first change."""
    params = {"app": "rescue", "user": "daemon", "root": "/srv/probe/x", "groups": ["app"]}
    params |= {"folders": ["/var/lib/dpkg"], "units": [], "settings": "main.yml"}
    program = "flaskstack call conflicts"
    message = json.loads(host.check_output("echo %s | " + program, json.dumps(params)))["msg"]
    for name in ("rescue.target is a unit", "app_user is daemon", "folder of probe's", "lib/dpkg:"):
        assert name in message
    own = params | {"app": "probe", "user": "probe", "root": "/srv/probe", "folders": []}
    answer = host.check_output("echo %s | " + program, json.dumps(own))
    assert json.loads(answer) == {"changed": False}


@pytest.fixture
def connect(host):
    """Return `connect(address, port)`, which returns the outcome and the rejected packets.

    Timers are stopped, since each unit that they start reloads the rules and resets the counter.
    """
    timers = host.check_output("systemctl list-units --plain --no-legend 'probe-*.timer'")
    names = " ".join(line.split()[0] for line in timers.splitlines())
    host.check_output(f"systemctl stop {names}")

    def connect(address, port):
        outcome = host.check_output(
            f"flaskstack probe run python3 -c {shlex.quote(CONNECT)} {address} {port}"
        )
        rules = host.check_output("nft list chain inet flaskstack_probe refused")
        return outcome, int(rules.split("counter packets ")[1].split()[0])

    yield connect
    host.check_output(f"systemctl start {names}")


def test_app_cannot_connect_to_services_of_the_host(host, connect):
    assert connect("127.0.0.1", 22) == ("OSError [Errno 113] No route to host", 1)
    assert host.check_output(f"python3 -c {shlex.quote(CONNECT)} 127.0.0.1 22") == "connected"


def test_app_can_connect_to_the_web_server_of_the_host(connect):
    assert connect("127.0.0.1", 80) == ("connected", 0)


def test_egress_rules_are_reloaded_after_a_flush(host):
    host.check_output("nft flush ruleset && systemctl start nftables")
    wait_for(lambda: "flaskstack_probe" in host.check_output("nft list tables"))
    assert "flaskstack_waves" in host.check_output("nft list tables")
    host.check_output("systemctl stop nftables")
    host.check_output("systemctl restart %s", live_web(host, "probe"))
    assert "flaskstack_probe" in host.check_output("nft list tables")
