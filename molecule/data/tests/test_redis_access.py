"""Only the app has access, and cannot administer the instance."""

import re
import shlex

import pytest

testinfra_hosts = ["ansible://queue"]

OUTSIDER = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
MEMBER = "setpriv --reuid=nobody --regid=nogroup --groups=my_shop-redis"

ADMINISTRATION = [
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET *",
    "CONFIG SET dir /tmp",
    "KEYS *",
    "ACL LIST",
    "REPLICAOF 192.0.2.1 6379",
    "MODULE LIST",
    "CLIENT KILL TYPE normal",
    "SHUTDOWN",
]

# Commands of redis-py and RQ other than reads and writes, with a part of the reply.
WORK = {
    "CLIENT SETNAME worker": "OK",
    "CLIENT LIST": "user=my_shop",
    "EVAL \"return redis.call('SET', KEYS[1], 'x')\" 1 scripted": "OK",
    "INFO server": "redis_version",
    "PUBLISH rq:pubsub:worker stop": "0",
    "SCAN 0": "0",
}


def test_app_cannot_administer_the_instance(queue):
    answers = queue(feed=shlex.join(["printf", "%s\\n", *ADMINISTRATION])).splitlines()

    assert len(answers) == len(ADMINISTRATION)
    assert [answer for answer in answers if not answer.startswith("NOPERM")] == []


@pytest.mark.parametrize("command", WORK)
def test_app_can_run_the_commands_of_its_libraries(queue, command):
    assert WORK[command] in queue(*shlex.split(command))


def test_script_has_no_more_permissions_than_the_app(queue):
    queue("SET", "scripted", "kept")

    assert queue("EVAL", "return redis.call('FLUSHALL')", "0") != "OK"
    assert queue("GET", "scripted") == "kept"


def test_wrong_password_is_rejected(queue):
    answer = queue("PING", password="wrong")

    assert "WRONGPASS" in answer
    assert "PONG" not in answer


def test_default_user_cannot_log_in(queue):
    answer = queue("PING", user="default")

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


def test_password_is_not_stored_or_logged_in_clear_text(host, generated):
    """The pattern does not match itself. Lines of sudo, which logs these commands, are ignored."""
    password = generated("queue")
    pattern = shlex.quote(f"[{password[0]}]{re.escape(password[1:])}")

    files = f"grep -rlaE {pattern} /etc /var/lib/redis /var/log/redis /proc/[0-9]*/cmdline"
    logs = f"journalctl --no-pager | grep -v ' sudo' | grep -E {pattern}"
    assert host.run(f"{files} 2>/dev/null").stdout == ""
    assert host.run(logs).stdout == ""


def test_packaged_instance_is_masked(host):
    assert host.service("redis-server").is_masked
    assert not host.service("redis-server").is_running
