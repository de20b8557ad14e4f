"""The app's user has the commands that caches and queues are made of, and no others."""

import shlex

import pytest

testinfra_hosts = ["ansible://cache"]

# Each is complete, since Redis counts arguments before it looks at rights.
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

# Of redis-py, RQ, Celery, Flask-Caching, Flask-Limiter and Flask-Session; and a part of the answer.
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
    """Each of the host's instances."""
    return {"cache": cache, "queue": queue}[request.param]


def test_refused(instance):
    answers = instance(feed=shlex.join(["printf", "%s\\n", *REFUSED])).splitlines()
    assert len(answers) == len(REFUSED)
    assert [answer for answer in answers if not answer.startswith("NOPERM")] == []


@pytest.mark.parametrize("command", ALLOWED)
def test_allowed(instance, command):
    answer = instance(*shlex.split(command))
    assert ALLOWED[command] in answer
    assert "NOPERM" not in answer


def test_there_is_no_network_beside_the_sockets(host, instance):
    links = host.check_output("nsenter --target=%s --net ip -o link", str(instance.process))
    assert [line.split(": ")[1] for line in links.splitlines()] == ["lo"]


def test_its_unit_is_confined(host, instance):
    said = host.check_output("systemd-analyze security --no-pager %s", instance.unit)
    assert float(said.rsplit("level for", 1)[1].split(": ", 1)[1].split()[0]) <= 1.5
