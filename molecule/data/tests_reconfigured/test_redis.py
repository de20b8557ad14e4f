"""Changed settings are those of the running queue, which has kept its jobs."""

testinfra_hosts = ["ansible://queue"]


def test_the_new_password_opens_and_the_old_does_not(queue, generated):
    assert queue("PING", password=generated("queue_new")) == "PONG"
    assert "WRONGPASS" in queue("PING")


def test_the_new_settings_hold_without_a_restart(queue, generated):
    queue.password = generated("queue_new")

    assert queue.info("maxmemory") == str(24 * 1024 * 1024)
    assert queue("LRANGE", "kept", "0", "-1") == queue.info("run_id")


def test_the_memory_limit_of_the_running_queue_follows(host, queue):
    limit = host.check_output("systemctl show --property=MemoryMax --value %s", queue.unit)
    assert limit == str((64 + 3 * 24) * 2**20)
