"""Changed settings are those of the running queue, which has kept its jobs."""

testinfra_hosts = ["ansible://queue"]


def test_the_new_password_opens_and_the_old_does_not(queue, generated):
    assert queue("PING", password=generated("queue_new")) == "PONG"
    assert "WRONGPASS" in queue("PING")


def test_the_new_memory_limit_holds(queue, generated):
    queue.password = generated("queue_new")

    assert queue.info("maxmemory") == str(24 * 1024 * 1024)


def test_jobs_from_before_are_there(queue, generated):
    assert queue("LRANGE", "kept", "0", "-1", password=generated("queue_new")) == "job"
