"""Redis instances that fail, and what is shared through them; see LESSONS 9 and 11."""

import pytest
import redis

from sample_app import cache, queues, redis_guard
from sample_app.redis_guard import GuardedRedis, Unavailable


class Scripted:
    """A client whose every call takes the next answer; exceptions are raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = 0

    def get(self, _key):
        """Answer."""
        self.calls += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def get(client):
    """Ask for something."""
    return client.get("key")


@pytest.mark.parametrize("error", [redis.ConnectionError("x"), redis.TimeoutError("x"), OSError()])
def test_a_failure_opens_the_breaker(error):
    """The second visitor does not wait for what the first one waited for."""
    client = Scripted(error, "never asked for")
    guard = GuardedRedis("cache", client)
    for _ in range(5):
        with pytest.raises(Unavailable):
            guard.call(get)
    assert client.calls == 1


def test_the_breaker_closes_again():
    """After the pause one call tries, and its success is everybody's."""
    client = Scripted(redis.ConnectionError("x"), "one", "two")
    guard = GuardedRedis("cache", client)
    with pytest.raises(Unavailable):
        guard.call(get)
    guard.breaker.reset_timeout = 0
    assert [guard.call(get), guard.call(get)] == ["one", "two"]
    assert guard.breaker.current_state == "closed"


def test_a_refusal_leaves_the_breaker_closed():
    """A server that answers is there, whatever it answers."""
    refusal = redis.ResponseError("OOM command not allowed when used memory > 'maxmemory'")
    client = Scripted(refusal, "answer")
    guard = GuardedRedis("queue", client)
    with pytest.raises(Unavailable, match="queue: refused: out of memory"):
        guard.call(get)
    assert guard.call(get) == "answer"


def test_our_own_mistakes_are_not_hidden():
    """A bug is no outage."""
    guard = GuardedRedis("cache", Scripted(KeyError("bug")))
    with pytest.raises(KeyError):
        guard.call(get)


def test_clients_wait_for_a_short_time_only():
    """Both instances hanging must still leave the page below a second."""
    client = redis_guard.connect("unix://user:p%25w@/run/cache.sock?db=0")
    options = client.connection_pool.connection_kwargs
    assert options["socket_timeout"] + options["socket_connect_timeout"] <= 0.8
    assert options["health_check_interval"] > 0
    assert options["password"] == "p%w"
    retry = options["retry"]
    assert retry.get_retries() > 0
    assert retry._supported_errors == (redis.ConnectionError,), "would wait for a timeout twice"


def test_the_digest_is_made_once(app):
    """All workers show the value that the first one made."""
    made = []

    def make():
        made.append(1)
        return {"notes": len(made)}

    first, second = cache.digest(make), cache.digest(make)
    assert (first["notes"], second["notes"], len(made)) == (1, 1, 1)
    assert first["made_by"] == second["made_by"]
    assert cache.guard.client.ttl(cache.DIGEST) == cache.DIGEST_LIFETIME


def test_of_two_makers_the_first_to_write_wins(app):
    """The second one shows the first one's value rather than its own."""

    def slow_make():
        cache.digest(lambda: {"notes": 1})
        return {"notes": 2}

    assert cache.digest(slow_make)["notes"] == 1


def test_a_batch_is_handed_over_in_pieces(app, monkeypatch):
    """One round trip stays short, however many jobs there are."""
    sizes = []
    hand_over = queues._hand_over
    monkeypatch.setattr(
        queues,
        "_hand_over",
        lambda client, batch, jobs: (sizes.append(len(jobs)), hand_over(client, batch, jobs)),
    )
    batch = queues.queue_batch(120, 0)
    assert sizes == [50, 50, 20]
    assert queues.batch_stats(batch)["queued"] == queues.stats()["waiting"] == 120
