"""Three apps on one host do not touch each other."""

from __future__ import annotations

import pytest

from waiting import wait_for

UNITS = ("nginx", "blog-web@?.service", "filedrop-web@?.service", "redis-server@*", "blog.target")


@pytest.fixture
def started(host):
    """Return a function that tells since when each unit of the other apps runs."""
    show = "systemctl show --property Id,ActiveEnterTimestampMonotonic,MainPID"
    return lambda: host.check_output(f"{show} {' '.join(UNITS)}")


def test_a_deploy_of_one_leaves_the_others_alone(host, dice, started):
    # An instance of before may still finish what it holds.
    leaving = "systemctl list-units --plain --no-legend --state=deactivating"
    wait_for(lambda: not host.check_output(leaving), 60)
    before, release = started(), host.file("/srv/dice/current").linked_to
    assert "filedrop-web@" in before
    dice.deploy()
    assert host.file("/srv/dice/current").linked_to != release
    assert started() == before


def test_the_same_again_changes_nothing(filedrop):
    """And of the other two, once this one is gone."""
    done = filedrop.play("site.yml", "--skip-tags=access")
    assert done.changed == 0
    assert "Nothing new" in done.output
    assert "[WARNING]" not in done.output


@pytest.mark.parametrize("path", ["/etc/blog/environment", "/srv/blog/shared/instance/blog.sqlite"])
def test_no_app_reads_what_another_has(host, path):
    read = "setpriv --reuid={0} --regid={0} --clear-groups head --bytes=1 {1}"
    assert host.run(read.format("blog", path)).rc == 0
    assert "Permission denied" in host.run(read.format("dice", path)).stderr


def test_no_app_asks_another_past_nginx(host):
    program = "import socket; socket.socket(socket.AF_UNIX).connect('/srv/blog/web.sock')"
    connect = "setpriv --reuid={0} --regid={0} {1} python3 -c %s"
    assert host.run(connect.format("www-data", "--init-groups"), program).rc == 0
    refused = host.run(connect.format("dice", "--clear-groups"), program)
    assert "PermissionError" in refused.stderr
