"""Changed settings are in effect in the running queue, without a restart."""

testinfra_hosts = ["ansible://queue"]


def test_only_the_new_password_is_valid(queue, generated):
    assert queue("PING", password=generated("queue_new")) == "PONG"
    assert "WRONGPASS" in queue("PING")


def test_settings_change_without_a_restart(queue, generated):
    queue.password = generated("queue_new")

    assert queue.info("maxmemory") == str(24 * 1024 * 1024)
    assert queue("LRANGE", "kept", "0", "-1") == queue.info("run_id")


def test_memory_limit_of_the_running_queue_changes(host, queue):
    limit = host.check_output("systemctl show --property=MemoryMax --value %s", queue.unit)
    assert limit == str((64 + 3 * 24) * 2**20)
