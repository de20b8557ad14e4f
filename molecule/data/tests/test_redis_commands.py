"""The app's user can run only the commands that its libraries need."""

import shlex

import pytest

testinfra_hosts = ["ansible://cache"]

# Complete commands, because Redis checks the number of arguments before permissions.
REFUSED = [
    "ACL SETUSER my_shop +@all",
    "BGREWRITEAOF",
    "BGSAVE",
    "CLIENT NO-EVICT on",
    "CLIENT PAUSE 1000",
    "FAILOVER",
    "FCALL f 0",
    "FUNCTION FLUSH",
    "FUNCTION LOAD x",
    "LATENCY RESET",
    "MIGRATE 192.0.2.1 6379 key 0 1000",
    "MONITOR",
    "RESTORE key 0 x",
    "ROLE",
    "SAVE",
    "SCRIPT DEBUG SYNC",
    "SCRIPT FLUSH",
    "SLOWLOG GET",
    "SORT key",
    "SWAPDB 0 1",
]

# Commands of redis-py, RQ, Celery and Flask extensions, with a part of the reply.
ALLOWED = {
    "BLMOVE none other LEFT RIGHT 0.01": "",
    "BRPOP none 0.01": "",
    "DBSIZE": "",
    "EXPIRE none 10": "0",
    "HSET hash field x": "",
    "INCR counter": "",
    "LPUSH list x": "",
    "SCRIPT LOAD 'return 1'": "e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
    "SET lock x NX PX 10": "",
    "SUNION none other": "",
    "TIME": "1",
    "XADD stream * field x": "-0",
    "ZADD sorted 1 x": "",
}


@pytest.fixture(params=["cache", "queue"])
def instance(request, cache, queue):
    """Return each instance of the host."""
    return {"cache": cache, "queue": queue}[request.param]


def test_administrative_commands_are_rejected(instance):
    answers = instance(feed=shlex.join(["printf", "%s\\n", *REFUSED])).splitlines()
    assert len(answers) == len(REFUSED)
    assert [answer for answer in answers if not answer.startswith("NOPERM")] == []


@pytest.mark.parametrize("command", ALLOWED)
def test_commands_of_libraries_are_allowed(instance, command):
    answer = instance(*shlex.split(command))
    assert ALLOWED[command] in answer
    assert "NOPERM" not in answer


def test_instance_has_no_network(host, instance):
    links = host.check_output("nsenter --target=%s --net ip -o link", str(instance.process))
    assert [line.split(": ")[1] for line in links.splitlines()] == ["lo"]


def test_unit_is_sandboxed(host, instance):
    said = host.check_output("systemd-analyze security --no-pager %s", instance.unit)
    assert float(said.rsplit("level for", 1)[1].split(": ", 1)[1].split()[0]) <= 1.5
