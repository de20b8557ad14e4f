"""The queue keeps every acknowledged job."""

import pytest

from helpers.wait import wait_for

testinfra_hosts = ["ansible://queue"]

FILL = """python3 -c 'for i in range(300): print("RPUSH full", "x" * 65536)'"""


@pytest.fixture
def emptied(queue):
    """Delete the lists after the test."""
    yield
    queue("DEL", "full", "written")


@pytest.mark.usefixtures("emptied")
def test_full_queue_rejects_new_jobs_and_keeps_the_others(queue):
    answers = queue(feed=FILL).splitlines()

    accepted = [answer for answer in answers if answer.isdigit()]
    rejected = [answer for answer in answers if answer.startswith("OOM command not allowed")]
    assert len(accepted) + len(rejected) == 300
    assert rejected
    assert queue("LLEN", "full") == str(len(accepted))
    assert queue.info("evicted_keys") == "0"


@pytest.mark.usefixtures("emptied")
def test_acknowledged_jobs_survive_a_kill(host, queue):
    """Each RPUSH returns the length of the list, so the replies show the acknowledged jobs."""
    killed = queue.process

    answers = host.check_output(
        f"""
        cd $(mktemp --directory) && touch answers
        seq 20000 | sed 's/^/RPUSH written /' | {queue.command()} > answers &
        timeout 60 sh -c 'until [ $(wc --lines < answers) -gt 1000 ]; do :; done'
        kill -9 {killed}; wait; cat answers
        """
    ).splitlines()

    wait_for(lambda: queue("PING") == "PONG")
    acknowledged = [int(answer) for answer in answers if answer.isdigit()]
    written = queue("LRANGE", "written", "0", "-1").splitlines()
    assert queue.process != killed
    assert 1000 < len(acknowledged) < 20000, "the kill interrupted nothing"
    assert len(written) >= len(acknowledged)
    assert len(written) >= acknowledged[-1]


@pytest.mark.usefixtures("emptied")
def test_transaction_survives_repeated_kills(host, queue):
    """RQ queues jobs in MULTI/EXEC, and Redis checks permissions again when it replays its file.

    Redis writes MULTI to its append-only file only for two or more commands. The number of kills
    exceeds systemd's default start limit.
    """
    queue(feed="printf 'MULTI\\nRPUSH written 1\\nRPUSH written 2\\nEXEC\\n'")
    for _ in range(6):
        killed = queue.process
        host.check_output("kill -9 %s", str(killed))
        wait_for(lambda killed=killed: queue.process not in (0, killed) and queue("PING") == "PONG")

    assert queue("LLEN", "written") == "2"
