"""Two apps on one host are isolated: neither has access to the Redis of the other."""

testinfra_hosts = ["ansible://cache"]

OTHER_USER = "setpriv --reuid=nobody --regid=nogroup --groups=other_shop-redis"


def test_group_of_another_app_cannot_use_the_socket(queue, other_queue):
    """The same command works with the socket of the other app."""
    assert other_queue("PING", run_as=OTHER_USER) == "PONG"
    assert "Permission denied" in queue("PING", run_as=OTHER_USER)


def test_password_of_another_app_is_rejected(queue, other_queue):
    assert "WRONGPASS" in queue("PING", user="other_shop", password=other_queue.password)


def test_redis_of_another_app_reads_only_its_files(host):
    """Run with the user and groups of the unit."""
    server = "setpriv --reuid=other_shop-redis --regid=other_shop-redis --groups=redis"
    for app, may in {"other_shop": True, "my_shop": False}.items():
        for path in (f"/var/lib/redis/{app}-queue", f"/etc/redis/redis-{app}-queue.conf"):
            assert host.run(f"{server} test -r {path}").succeeded == may, path


def test_redis_of_another_app_writes_only_its_files(host, other_queue):
    """Checked as root in the mount namespace of the process: read-only mounts apply to root too."""
    seen = f"/proc/{other_queue.process}/root"
    assert host.run(f"test -w {seen}/var/lib/redis/other_shop-queue").succeeded
    for path in ("/var/lib/redis/my_shop-queue", "/etc/redis", "/var/log/redis"):
        assert host.run(f"test -e {seen}{path} -a ! -w {seen}{path}").succeeded, path


def test_each_app_has_its_own_memory_limit(queue, other_queue):
    assert queue.info("maxmemory") == str(16 * 2**20)
    assert other_queue.info("maxmemory") == str(8 * 2**20)
