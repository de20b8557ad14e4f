"""Failing Redis instances, and values that workers share through them."""

import pytest
import redis

from sample_app import cache, resilient_redis
from sample_app.resilient_redis import Unavailable


@pytest.mark.parametrize("error", [redis.ConnectionError, redis.TimeoutError, OSError])
def test_a_failure_opens_the_breaker_until_a_trial_call_succeeds(app, error):
    def fail(_client):
        calls.append(error)
        raise error

    calls = []
    for _ in range(5):
        with pytest.raises(Unavailable):
            cache.instance.call(fail)
    assert len(calls) == 1
    cache.instance.breaker.reset_timeout = 0
    assert [cache.count_visit(), cache.count_visit()] == [1, 2]
    assert cache.instance.breaker.current_state == "closed"


def test_an_error_of_the_server_leaves_the_breaker_closed(app):
    def fail(_client):
        raise redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'")

    with pytest.raises(Unavailable, match="cache: refused with OOM"):
        cache.instance.call(fail)
    assert cache.count_visit() == 1


def test_bugs_are_raised(app):
    with pytest.raises(ZeroDivisionError):
        cache.instance.call(lambda _client: 1 / 0)


def test_clients_have_short_timeouts():
    client = resilient_redis.connect("unix://user:p%25w@/run/cache.sock?db=0")
    options = client.connection_pool.connection_kwargs
    assert options["socket_timeout"] + options["socket_connect_timeout"] <= 0.8
    assert options["health_check_interval"] > 0
    assert options["password"] == "p%w"
    retry = options["retry"]
    assert retry.get_retries() > 0
    assert retry._supported_errors == (redis.ConnectionError,), "would wait for a timeout twice"


def test_statistics_have_a_lifetime_and_the_first_to_store_wins(app):
    def count():
        cache.stats(lambda: {"notes": 1})
        return {"notes": 2}

    assert cache.stats(count)["notes"] == 1
    assert cache.instance.client.ttl(cache.STATS) == cache.STATS_LIFETIME
