"""The cache forgets what it must, and nothing of the queue. Both are on sockets alone."""

import socket

import pytest

testinfra_hosts = ["ansible://cache"]

# 64 MiB for an instance that may hold 16.
FILL = """python3 -c 'for i in range(1024): print(f"SET filler:{i}", "x" * 65536)'"""
MAXMEMORY = 16 * 1024 * 1024


def test_a_full_cache_evicts_and_every_job_survives(cache, queue):
    jobs = [f"job-{number}" for number in range(5)]
    queue("DEL", "waiting")
    queue("RPUSH", "waiting", *jobs)

    answers = cache(feed=FILL).splitlines()

    assert answers == ["OK"] * 1024
    assert cache.info("maxmemory_policy") == "allkeys-lru"
    assert int(cache.info("evicted_keys")) > 0
    assert int(cache.info("used_memory")) < 1.25 * MAXMEMORY
    assert queue("LRANGE", "waiting", "0", "-1").splitlines() == jobs
    assert queue.info("evicted_keys") == "0"


def test_the_cache_saves_nothing(host, cache):
    cache("SET", "forgotten", "1")

    host.check_output("systemctl restart %s", cache.unit)

    assert cache("GET", "forgotten") == ""
    assert host.check_output("ls -A /var/lib/redis/my_shop-cache") == ""


def test_the_kernel_takes_the_cache_before_the_queue(host, cache, queue):
    def score(instance):
        return int(host.check_output("cat /proc/%s/oom_score_adj", str(instance.process)))

    assert score(cache) > score(queue)


@pytest.mark.parametrize("port", [6379, 6380])
def test_nothing_listens_on_the_network(host, address, port):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, port), timeout=2).close()
    assert host.run("ss --listening --tcp --processes --no-header | grep redis").stdout == ""
