"""Redis instances that fail, and values that are shared through them (lessons 9 and 11)."""

import pytest
import redis

from sample_app import cache, resilient_redis
from sample_app.resilient_redis import ResilientRedis, Unavailable


@pytest.fixture
def scripted(monkeypatch):
    """Return a function that creates an instance with the given responses to `get`."""

    class Client:
        def __init__(self, responses):
            self.responses, self.calls = list(responses), 0

        def get(self, _key):
            self.calls += 1
            response = self.responses.pop(0)
            if isinstance(response, Exception):
                raise response
            return response

    def create(*responses):
        monkeypatch.setattr(resilient_redis, "connect", lambda _url: Client(responses))
        return ResilientRedis("queue", "url")

    return create


def get(client):
    """Read a key."""
    return client.get("key")


@pytest.mark.parametrize("error", [redis.ConnectionError("x"), redis.TimeoutError("x"), OSError()])
def test_a_failure_opens_the_breaker(scripted, error):
    instance = scripted(error, "not requested")
    for _ in range(5):
        with pytest.raises(Unavailable):
            instance.call(get)
    assert instance.client.calls == 1


def test_the_breaker_closes_again(scripted):
    instance = scripted(redis.ConnectionError("x"), "one", "two")
    with pytest.raises(Unavailable):
        instance.call(get)
    instance.breaker.reset_timeout = 0
    assert [instance.call(get), instance.call(get)] == ["one", "two"]
    assert instance.breaker.current_state == "closed"


def test_an_error_of_the_server_leaves_the_breaker_closed(scripted):
    error = redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'")
    instance = scripted(error, "value")
    with pytest.raises(Unavailable, match="queue: refused with OOM"):
        instance.call(get)
    assert instance.call(get) == "value"


def test_bugs_are_raised(scripted):
    with pytest.raises(KeyError):
        scripted(KeyError("bug")).call(get)


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
