"""Settings of cache and queue: durability, access, ports and rejected settings."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest

from helpers.imports import import_role_file

module = import_role_file("redis/library/redis_users.py")
PASSWORD = {"cache": "the password of the cache", "queue": "the password of the queue"}
PASSWORDS = {f"app_{name}_password": password for name, password in PASSWORD.items()}
ADMIN = {"content": b64encode(b"the password of the administrator").decode()}
DROP_INS = "etc/systemd/system/redis-server@.service.d/"
USERS = PASSWORDS | {"__redis_admin_password": ADMIN}


@pytest.fixture
def conf(render):
    """Return a function that returns the settings of an instance, each as a list of values."""

    def of(instance, **variables):
        text = render(
            "redis", f"etc/redis/redis-{instance}.conf.j2", item=instance, **PASSWORDS | variables
        )
        settings = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.split(" ", 1)
                settings.setdefault(name, []).append(value)
        return settings

    return of


@pytest.fixture
def rejected(evaluate):
    """Return a function that returns the names of rejected variables."""

    def names(**variables):
        messages = evaluate("redis", "__redis_problems", **PASSWORDS | variables)
        return [message.split(" ")[0].rstrip(":") for message in messages]

    return names


def test_only_the_queue_is_persistent(conf):
    cache, queue = conf("cache"), conf("queue")
    assert cache["maxmemory-policy"] == ["allkeys-lru"]
    assert cache["appendonly"] == ["no"]
    assert cache["save"] == ['""']
    assert queue["maxmemory-policy"] == ["noeviction"]
    assert queue["appendonly"] == ["yes"]


@pytest.fixture
def acl(render):
    """Return a function that returns the users and settings in an instance's ACL file."""

    def parsed(instance, **variables):
        text = render("redis", "etc/redis/users.j2", item=instance, **USERS | variables)
        return module.parse(text)

    return parsed


def test_sizes_and_durability_change_without_a_restart(conf, acl, render):
    assert acl("cache", redis_cache_maxmemory=32)[1] == {"maxmemory": str(32 * 2**20)}
    queue = acl("queue", redis_queue_maxmemory=8, redis_queue_appendfsync="everysec")[1]
    assert queue == {"maxmemory": str(8 * 2**20), "appendfsync": "everysec"}
    assert not conf("queue").keys() & queue.keys(), "a changed file restarts the instance"
    small, large = (
        render("redis", DROP_INS + "flaskstack.conf.j2", item="cache", redis_cache_maxmemory=size)
        for size in (8, 32)
    )
    assert small == large, "a changed drop-in restarts the instance"
    limits = render("redis", DROP_INS + "memory.conf.j2", item="cache", redis_cache_maxmemory=32)
    assert "MemoryMax=160M" in limits


@pytest.mark.parametrize("instance", ["cache", "queue"])
def test_each_instance_of_an_app_has_its_own_paths(conf, evaluate, instance):
    settings = conf(instance, app_name="my_shop")
    socket = f"/run/redis-my_shop-{instance}/redis.sock"
    assert settings["unixsocket"] == [socket]
    assert socket in evaluate("redis", f"app_{instance}_url", app_name="my_shop", **PASSWORDS)
    assert settings["pidfile"] == [f"/run/redis-my_shop-{instance}/redis-server.pid"]
    assert settings["dir"] == [f"/var/lib/redis/my_shop-{instance}"]


def other(**facts):
    """Return local facts about the Redis of another app on the host."""
    local = {"flaskstack_redis_blog": {"app": "blog"} | facts}
    return {"ansible_facts": {"ansible_local": local}, "redis_bind_address": "10.0.0.5"}


def test_port_of_another_app_is_rejected(rejected):
    taken = other(address="10.0.0.5", ports=[6379, 6380])
    assert rejected(**taken) == ["app_cache_port", "app_queue_port"]
    assert rejected(**taken, app_cache_port=6381, app_queue_port=6382) == []


def test_own_ports_and_those_of_other_addresses_are_accepted(rejected):
    assert rejected(**other(app="shop", address="10.0.0.5", ports=[6379, 6380])) == []
    assert rejected(**other(address="10.0.0.6", ports=[6379, 6380])) == []
    assert rejected(**other(address="", ports=[])) == []


def test_instances_need_different_ports(rejected):
    assert rejected(redis_bind_address="10.0.0.5", app_queue_port=6379) == ["app_queue_port"]


def hashed(password):
    return f"#{sha256(password.encode()).hexdigest()}"


@pytest.mark.parametrize("instance", ["cache", "queue"])
def test_acl_file_has_only_the_hash_of_the_password(conf, acl, instance):
    assert conf(instance)["include"] == [f"/etc/redis/shop-{instance}.users"]
    found, _ = acl(instance)
    assert found["default"][0] == "off"
    assert found["shop"][:2] == ["on", hashed(PASSWORD[instance])]
    assert PASSWORD[instance] not in str(found)


def test_previous_password_is_accepted_until_it_is_revoked(acl):
    def hashes(instance, **variables):
        given = {"app_cache_password_previous": "what it was"} | variables
        return [rule for rule in acl(instance, **given)[0]["shop"] if rule.startswith("#")]

    assert hashes("cache") == [hashed(PASSWORD["cache"]), hashed("what it was")]
    assert hashes("cache", __redis_revoked=["cache"]) == [hashed(PASSWORD["cache"])]
    assert hashes("queue") == [hashed(PASSWORD["queue"])]


def test_administrator_can_only_change_users_and_settings_and_copy_the_data(acl):
    rules = acl("queue")[0]["flaskstack-admin"]
    allowed = ["+acl|getuser", "+acl|setuser", "+config|get", "+config|set"]
    allowed += ["+sync", "+psync", "+replconf"]
    assert rules == ["on", hashed("the password of the administrator"), "-@all", *allowed]


def test_instance_does_not_listen_on_the_network_by_default(conf):
    settings = conf("queue")
    assert settings["port"] == ["0"]
    assert not settings.keys() & {"bind", "tls-port"}


@pytest.mark.parametrize(("instance", "port"), [("cache", "6379"), ("queue", "6380")])
def test_instance_accepts_only_tls_from_the_network(conf, instance, port):
    settings = conf(instance, redis_bind_address="10.0.0.5")
    assert settings["port"] == ["0"]
    assert settings["bind"] == ["10.0.0.5"]
    assert settings["tls-port"] == [port]


@pytest.mark.parametrize(
    ("host", "binds"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("localhost", "127.0.0.1 -::1")]
)
def test_host_on_loopback_opens_a_port_there(render, conf, evaluate, host, binds):
    given = {"app_queue_host": host, "app_queue_port": 6390}
    queue, cache = conf("queue", **given), conf("cache", **given)
    assert (queue["bind"], queue["port"]) == ([binds], ["6390"])
    assert "tls-port" not in queue
    assert (cache["port"], "bind" in cache) == (["0"], False)
    url = evaluate("redis", "app_queue_url", **PASSWORDS | given, app_redis_ca="/etc/ca.pem")
    assert url.startswith("redis://shop:")
    assert url.endswith(f"@{f'[{host}]' if ':' in host else host}:6390/0")
    drop_in = DROP_INS + "flaskstack.conf.j2"
    unit = render("redis", drop_in, item="queue", **PASSWORDS, **given)
    assert "IPAddressDeny=any\nIPAddressAllow=localhost" in unit
    assert "PrivateNetwork" not in unit
    assert "PrivateNetwork=yes" in render("redis", drop_in, item="cache", **PASSWORDS, **given)


def test_apps_cannot_share_a_port_on_loopback(evaluate, rejected):
    given = {"app_cache_host": "127.0.0.1", "app_queue_host": "::1"}
    facts = evaluate("redis", "__redis_settings | redis_facts", **PASSWORDS, **given)
    assert facts == {"app": "shop", "address": "127.0.0.1", "ports": [6379, 6380]}
    taken = other(**facts | {"app": "blog"}) | {"redis_bind_address": ""}
    assert rejected(**taken, **given) == ["app_cache_port", "app_queue_port"]
    assert rejected(**taken, **given, app_cache_port=6381, app_queue_port=6382) == []
    assert rejected(**taken) == [], "sockets take no port"


def test_loopback_is_rejected_for_an_instance_on_the_network(rejected):
    given = {"redis_bind_address": "10.0.0.5", "app_queue_host": "127.0.0.1"}
    assert rejected(**given, group_names=["app", "queue"]) == ["app_queue_host"]
    assert rejected(**given, group_names=["queue"]) == []


@pytest.mark.parametrize(
    ("groups", "instances"),
    [
        ([], ["cache", "queue"]),
        (["app"], ["cache", "queue"]),
        (["app", "queue"], ["queue"]),
        (["queue", "cache"], ["cache", "queue"]),
    ],
)
def test_host_runs_the_instances_of_its_groups(evaluate, groups, instances):
    assert evaluate("redis", "redis_instances", group_names=groups) == instances


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("app_cache_password", "short"),
        ("app_queue_password", ""),
        ("redis_cache_maxmemory", 0),
        ("redis_queue_maxmemory", 1),
        ("redis_bind_address", "0.0.0.0"),
        ("redis_bind_address", "::"),
        ("redis_bind_address", "cache.example.org"),
        ("redis_bind_address", "10.0.0.5\n"),
        ("redis_bind_address", "10.0.0"),
        ("redis_cache_rules", ['~it"s:*']),
        ("redis_cache_rules", ["+keys -@all"]),
        ("redis_cache_rules", ["~a\n+@all"]),
        ("redis_queue_rules", [">password"]),
        ("redis_instances", []),
    ],
)
def test_invalid_settings_are_rejected(rejected, variable, value):
    assert rejected(**{variable: value}) == [variable]


@pytest.mark.parametrize("address", ["", "10.0.0.5", "fd00::5"])
def test_valid_settings_are_accepted(rejected, address):
    rules = ["+keys", "-@dangerous", "resetkeys", "~shop:*", "%R~x", "&news"]
    assert rejected(redis_bind_address=address, redis_queue_rules=rules) == []


def test_host_without_cache_needs_no_password_for_it(rejected):
    assert rejected(redis_instances=["queue"], app_cache_password="") == []
