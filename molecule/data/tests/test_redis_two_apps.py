"""Two apps on one host: neither reaches the other's Redis, nor does the other's Redis itself."""

testinfra_hosts = ["ansible://cache"]

NEIGHBOUR = "setpriv --reuid=nobody --regid=nogroup --groups=other_shop-redis"


def test_another_apps_group_does_not(queue, neighbour):
    """Its own socket it reaches, so it is not the command that fails."""
    assert neighbour("PING", run_as=NEIGHBOUR) == "PONG"
    assert "Permission denied" in queue("PING", run_as=NEIGHBOUR)


def test_another_apps_password_is_refused(queue, neighbour):
    assert "WRONGPASS" in queue("PING", user="other_shop", password=neighbour.password)


def test_another_apps_redis_reads_only_its_own(host):
    """As the user and with the groups of its unit."""
    server = "setpriv --reuid=other_shop-redis --regid=other_shop-redis --groups=redis"
    for app, may in {"other_shop": True, "my_shop": False}.items():
        for path in (f"/var/lib/redis/{app}-queue", f"/etc/redis/redis-{app}-queue.conf"):
            assert host.run(f"{server} test -r {path}").succeeded == may, path


def test_another_apps_redis_writes_only_its_own(host, neighbour):
    """Root asks, in its view of the file system: what is read-only there is so for everybody."""
    seen = f"/proc/{neighbour.process}/root"
    assert host.run(f"test -w {seen}/var/lib/redis/other_shop-queue").succeeded
    for path in ("/var/lib/redis/my_shop-queue", "/etc/redis", "/var/log/redis"):
        assert host.run(f"test -e {seen}{path} -a ! -w {seen}{path}").succeeded, path


def test_each_app_has_memory_of_its_own(queue, neighbour):
    assert queue.info("maxmemory") == str(16 * 2**20)
    assert neighbour.info("maxmemory") == str(8 * 2**20)
