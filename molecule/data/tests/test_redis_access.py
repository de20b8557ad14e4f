"""Only the app has access, and can run only the commands that its libraries need."""

import shlex

import pytest

testinfra_hosts = ["ansible://queue"]

OUTSIDER = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
MEMBER = "setpriv --reuid=nobody --regid=nogroup --groups=my_shop-redis"

# Complete commands, because Redis checks the number of arguments before permissions.
REJECTED = [
    "ACL LIST",
    "ACL SETUSER my_shop +@all",
    "BGREWRITEAOF",
    "CLIENT KILL TYPE normal",
    "CLIENT NO-EVICT on",
    "CLIENT PAUSE 1000",
    "CONFIG GET *",
    "CONFIG SET dir /tmp",
    "FAILOVER",
    "FCALL f 0",
    "FLUSHALL",
    "FUNCTION FLUSH",
    "FUNCTION LOAD x",
    "LATENCY RESET",
    "MIGRATE 192.0.2.1 6379 key 0 1000",
    "MODULE LIST",
    "MONITOR",
    "REPLICAOF 192.0.2.1 6379",
    "RESTORE key 0 x",
    "ROLE",
    "SAVE",
    "SCRIPT DEBUG SYNC",
    "SCRIPT FLUSH",
    "SHUTDOWN",
    "SLOWLOG GET",
    "SORT key",
    "SWAPDB 0 1",
]
CACHE_ONLY = ["FLUSHDB", "KEYS *"]

# Commands of redis-py, RQ, Celery and Flask extensions, with a part of the reply.
ALLOWED = {
    "BLMOVE none other LEFT RIGHT 0.01": "",
    "BRPOP none 0.01": "",
    "CLIENT LIST": "user=my_shop",
    "CLIENT SETNAME worker": "OK",
    "DBSIZE": "",
    "EVAL \"return redis.call('SET', KEYS[1], 'x')\" 1 scripted": "OK",
    "EXPIRE none 10": "0",
    "HSET hash field x": "",
    "INCR counter": "",
    "INFO server": "redis_version",
    "LPUSH list x": "",
    "PUBLISH rq:pubsub:worker stop": "0",
    "SCAN 0": "0",
    "SCRIPT LOAD 'return 1'": "e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
    "SET lock x NX PX 10": "",
    "SUNION none other": "",
    "TIME": "1",
    "XADD stream * field x": "-0",
    "ZADD sorted 1 x": "",
}


def run(instance, commands):
    """Return the lines that redis-cli prints for several commands."""
    return instance(feed=shlex.join(["printf", "%s\\n", *commands])).splitlines()


def test_administrative_commands_are_rejected(queue):
    answers = run(queue, [*REJECTED, *CACHE_ONLY])
    assert len(answers) == len([*REJECTED, *CACHE_ONLY])
    assert [answer for answer in answers if not answer.startswith("NOPERM")] == []


def test_commands_of_libraries_are_allowed(queue):
    answers = run(queue, ALLOWED)
    assert [answer for answer in answers if answer.startswith(("NOPERM", "ERR"))] == []
    missing = [part for part in ALLOWED.values() if part not in "\n".join(answers)]
    assert missing == []


def test_script_has_no_more_permissions_than_the_app(queue):
    queue("SET", "scripted", "kept")
    assert queue("EVAL", "return redis.call('FLUSHALL')", "0") != "OK"
    assert queue("GET", "scripted") == "kept"


@pytest.mark.parametrize("login", [{"password": "wrong"}, {"user": "default"}])
def test_other_logins_are_rejected(queue, login):
    answer = queue("PING", **login)
    assert "WRONGPASS" in answer
    assert "PONG" not in answer


def test_only_the_group_can_use_the_socket(queue):
    assert queue("PING", run_as=MEMBER) == "PONG"
    assert "Permission denied" in queue("PING", run_as=OUTSIDER)


@pytest.mark.parametrize(
    "path",
    [
        "/var/lib/redis/my_shop-queue",
        "/etc/redis/redis-my_shop-queue.conf",
        "/etc/redis/my_shop-queue.users",
        "/etc/redis/my_shop.admin",
    ],
)
def test_app_cannot_read_data_and_configuration(host, path):
    assert host.run(f"{MEMBER} test -r {path}").failed
    assert host.run(f"test -r {path}").succeeded


def test_packaged_instance_is_masked(host):
    assert host.service("redis-server").is_masked
    assert not host.service("redis-server").is_running


def test_unit_is_sandboxed(host, queue):
    report = host.check_output("systemd-analyze security --no-pager %s", queue.unit)
    assert float(report.rsplit("level for", 1)[1].split(": ", 1)[1].split()[0]) <= 1.5
