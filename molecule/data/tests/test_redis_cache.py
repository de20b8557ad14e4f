"""The cache evicts data without affecting the queue. Both listen only on sockets."""

import socket

import pytest

testinfra_hosts = ["ansible://cache"]

# 64 MiB for an instance with maxmemory 16 MiB.
FILL = """python3 -c 'for i in range(1024): print(f"SET filler:{i}", "x" * 65536)'"""
MAXMEMORY = 16 * 1024 * 1024


def test_full_cache_evicts_keys_and_the_queue_keeps_its_jobs(cache, queue):
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


def test_cache_is_empty_after_a_restart(host, cache):
    cache("SET", "forgotten", "1")

    host.check_output("systemctl restart %s", cache.unit)

    assert cache("GET", "forgotten") == ""
    assert host.check_output("ls -A /var/lib/redis/my_shop-cache") == ""


def test_app_can_list_and_empty_the_cache(cache):
    cache("SET", "listed", "1")
    assert "listed" in cache("KEYS", "*").splitlines()
    assert cache("FLUSHDB") == "OK"
    assert "NOPERM" in cache("FLUSHALL")


def test_oom_killer_prefers_the_cache_to_the_queue(host, cache, queue):
    def score(instance):
        return int(host.check_output("cat /proc/%s/oom_score_adj", str(instance.process)))

    assert score(cache) > score(queue)


def test_no_instance_has_a_network(host, address, cache, queue):
    for port, instance in ((6379, cache), (6380, queue)):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), timeout=2).close()
        links = host.check_output("nsenter --target=%s --net ip -o link", str(instance.process))
        assert [line.split(": ")[1] for line in links.splitlines()] == ["lo"]
    assert host.run("ss --listening --tcp --processes --no-header | grep redis").stdout == ""
