"""Plans fit the memory of hosts from 512 MB to 32 GB."""

import pytest

from helpers.plans import HOSTS, TIERS, failing, host, planned
from plan_sizes import connections_needed
from size_checks import size_checks

PROVIDERS = ("mariadb", "mysql")
LAYOUTS = [TIERS, *[(tier,) for tier in TIERS], ("edge", "app"), ("database", "cache", "queue")]
GROWING = (
    "gunicorn_workers",
    "gunicorn_threads",
    "app_database_pool_size",
    "mysql_innodb_buffer_pool_size",
    "redis_cache_maxmemory",
    "redis_queue_maxmemory",
)


def one(*args, **given):
    return planned(one=host(*args, **given))["one"]


def left(planned_host):
    return planned_host["memory"] - sum(planned_host["parts"].values())


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("tiers", LAYOUTS, ids="-".join)
def test_all_services_together_fit_the_memory(tiers, provider):
    """MySQL and three Python processes need more than 512 MB, so small hosts use swap."""
    sizes = [(memory, max(1, memory // 2048)) for memory in range(440, 33_000, 130)]
    for memory, cpus in [*HOSTS, *sizes]:
        result = one(memory, cpus, tiers, provider=provider)
        assert size_checks({"one": result}) == [], memory
        assert left(result) >= (-256 if memory < 900 else 0), memory


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("tiers", LAYOUTS, ids="-".join)
def test_larger_host_never_gets_less(tiers, provider):
    plans = [one(memory, cpus, tiers, provider=provider)["plan"] for memory, cpus in HOSTS]
    for name in GROWING:
        sizes = [plan[name] for plan in plans]
        assert sizes == sorted(sizes), name


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("tiers", [TIERS, ("app",), ("edge", "app")], ids="-".join)
@pytest.mark.parametrize(("memory", "cpus"), HOSTS)
def test_second_release_fits_beside_the_first(memory, cpus, tiers, provider):
    result = one(memory, cpus, tiers, provider=provider)
    room = left(result) + result["plan"]["base_swap_size"] // 2
    assert room >= result["parts"]["web workers"]


@pytest.mark.parametrize(
    ("memory", "swap", "strategy"),
    [(960, 1024, "switch"), (960, 0, "restart"), (460, 1024, "restart"), (460, 0, "restart")],
)
def test_release_restarts_where_two_do_not_fit(memory, swap, strategy):
    result = one(memory, 1, base_swap_size=swap)
    assert result["plan"]["release_strategy"] == strategy
    both = left(result) >= 0 and left(result) + swap // 2 >= result["parts"]["web workers"]
    assert both is (strategy == "switch")


def test_switch_without_room_is_rejected_with_the_numbers():
    result = one(960, 1, base_swap_size=0, release_strategy="switch")
    web, room = result["parts"]["web workers"], left(result)
    assert 0 <= room < web
    (check,) = size_checks({"one": result})
    assert (check["variable"], check["value"]) == ("release_strategy", "switch")
    assert f"holds {web} MiB, and one has {room} MiB" in check["reason"]
    assert size_checks({"one": one(960, 1, base_swap_size=0, release_strategy="restart")}) == []


def test_memory_limit_of_a_process_replaces_the_usual_memory():
    parts = one(1960, 2, processes=[0, 300, 20])["parts"]
    assert parts["background processes"] == 80 + 300 + 20
    checks = size_checks({"one": one(1960, 2, processes=[0, 3000])})
    assert "background processes 3080" in checks[0]["reason"]


@pytest.mark.parametrize(
    ("memory", "cpus", "workers", "threads"),
    [(460, 1, 1, 2), (960, 1, 2, 4), (1960, 2, 3, 4), (7940, 4, 9, 4), (32100, 32, 32, 4)],
)
def test_workers_follow_the_cpus_as_memory_allows(memory, cpus, workers, threads):
    plan = one(memory, cpus)["plan"]
    assert (plan["gunicorn_workers"], plan["gunicorn_threads"]) == (workers, threads)
    assert plan["app_database_pool_size"] == threads


@pytest.mark.parametrize(
    ("memory", "share"), [(460, 0.25), (960, 0.4), (1960, 0.55), (7940, 0.6), (32100, 0.68)]
)
def test_database_gets_most_memory_of_a_dedicated_host(memory, share):
    size = one(memory, 4, ["database"])["plan"]["mysql_innodb_buffer_pool_size"]
    assert share <= size / memory < 0.75


@pytest.mark.parametrize(("memory", "swap"), [(460, 1024), (960, 1024), (1960, 0), (32100, 0)])
def test_small_hosts_get_swap(memory, swap):
    assert one(memory)["plan"]["base_swap_size"] == swap


@pytest.mark.parametrize(("memory", "on"), [(460, False), (1960, False), (3900, True)])
def test_small_hosts_have_no_performance_schema(memory, on):
    assert one(memory)["plan"]["mysql_performance_schema"] is on


def test_buffer_pool_is_whole_chunks():
    """InnoDB would round up and exceed the budget."""
    for memory in range(440, 33_000, 97):
        size = one(memory, 4)["plan"]["mysql_innodb_buffer_pool_size"]
        assert size % (128 if size >= 128 else 16) == 0


def test_connections_suffice_for_two_releases_on_every_app_host():
    web = host(1960, 2, ["app"], processes=3)
    site = planned(web1=web, web2=web, db=host(7940, 4, ["database"]))
    per_host = 2 * (5 + 3) * 4
    assert site["db"]["plan"]["mysql_max_connections"] == 2 * per_host + 10
    assert connections_needed(site) == 2 * per_host + 10


def test_minimum_is_30_connections():
    assert one(460, 1, processes=0)["plan"]["mysql_max_connections"] == 30


@pytest.mark.parametrize(
    "given",
    [
        {"gunicorn_workers": 1},
        {"mysql_innodb_buffer_pool_size": 96},
        {"redis_cache_maxmemory": 256},
        {"redis_queue_maxmemory": 200},
        {"gunicorn_threads": 8},
        {"gunicorn_worker_memory": 200},
        {"base_swap_size": 256},
        {"mysql_performance_schema": True},
        {"mysql_max_connections": 200},
    ],
    ids=str,
)
def test_inventory_wins_and_other_sizes_adjust(given):
    result = one(1960, 2, **given)
    assert result["plan"] | given == result["plan"]
    assert left(result) >= 0
    assert size_checks({"one": result}) == []


def test_unused_share_goes_to_other_settings():
    usual, modest = one(1960, 2)["plan"], one(1960, 2, redis_cache_maxmemory=16)["plan"]
    assert modest["redis_queue_maxmemory"] > usual["redis_queue_maxmemory"]
    assert modest["mysql_innodb_buffer_pool_size"] >= usual["mysql_innodb_buffer_pool_size"]


def test_queue_has_room_to_rewrite_its_file():
    result = one(1960, 2, ["queue"])
    assert result["parts"]["Redis queue"] == 8 + result["plan"]["redis_queue_maxmemory"] * 3 // 2


@pytest.mark.parametrize(
    "given",
    [
        {"mysql_innodb_buffer_pool_size": 4096},
        {"redis_cache_maxmemory": 3000},
        {"redis_queue_maxmemory": 3000},
        {"gunicorn_workers": 40},
        {"gunicorn_worker_memory": 900},
    ],
    ids=str,
)
def test_exceeding_the_memory_is_rejected_with_a_valid_example(given):
    checks = size_checks({"one": one(1960, 2, **given)})
    assert failing(checks) == list(given)
    assert "one would hold" in checks[0]["reason"]
    assert "its 1960 MiB" in checks[0]["reason"]
    example = {checks[0]["variable"]: checks[0]["example"]}
    assert size_checks({"one": one(1960, 2, **(given | example))}) == []


def test_small_host_is_rejected_with_the_missing_memory():
    (check,) = size_checks({"one": one(460, 1, processes=12)})
    assert check["variable"] == "host_memory"
    assert "MiB more, or move one of its groups" in check["remedy"]
    assert "background processes 960" in check["reason"]


def test_setting_for_another_host_is_not_reported():
    site = planned(app=host(460, 1, ["app"], processes=20, redis_cache_maxmemory=16))
    assert failing(size_checks(site)) == ["host_memory"]


@pytest.mark.parametrize("given", [{}, {"gunicorn_worker_class": "gevent"}], ids=str)
@pytest.mark.parametrize(("memory", "cpus"), HOSTS[1:])
def test_one_client_cannot_occupy_all_workers(memory, cpus, given):
    plan = one(memory, cpus, **given)["plan"]
    each = plan["gunicorn_worker_connections" if given else "gunicorn_threads"]
    together = plan["nginx_limit_connections"] + plan["nginx_limit_streams"]
    assert together < plan["gunicorn_workers"] * each
    assert plan["nginx_limit_connections"] >= 4
    assert plan["nginx_limit_streams"] >= (500 if given else 2)


def test_client_limits_of_the_inventory_win():
    given = {"nginx_limit_connections": 0, "nginx_limit_streams": 900}
    assert one(**given)["plan"].items() >= given.items()


@pytest.mark.parametrize("tiers", [TIERS, ("edge", "app")], ids="-".join)
@pytest.mark.parametrize(("memory", "cpus"), HOSTS)
def test_app_may_use_the_remaining_memory(memory, cpus, tiers):
    result = one(memory, cpus, tiers)
    parts, plan = result["parts"], result["plan"]
    own = parts["web workers"] + parts["background processes"]
    limit, each = plan["gunicorn_memory_limit"], plan["gunicorn_worker_memory_limit"]
    assert limit >= own
    assert limit + sum(parts.values()) - own <= max(memory, sum(parts.values()))
    # A worker is replaced before all exceed the limit, but not below its planned size.
    assert 120 <= each <= max(limit // plan["gunicorn_workers"], 120)


def test_memory_limits_of_the_inventory_win():
    given = {"gunicorn_memory_limit": 700, "gunicorn_worker_memory_limit": 0}
    assert one(**given)["plan"].items() >= given.items()
    assert one(gunicorn_memory_limit=0)["plan"]["gunicorn_worker_memory_limit"] == 0


def test_limit_below_the_memory_of_the_workers_is_rejected():
    (check,) = size_checks({"one": one(gunicorn_memory_limit=100)})
    assert (check["variable"], check["value"]) == ("gunicorn_memory_limit", 100)
    assert size_checks({"one": one(gunicorn_memory_limit=check["example"])}) == []


def test_pool_smaller_than_the_threads_is_rejected():
    (check,) = size_checks({"one": one(gunicorn_threads=8, app_database_pool_size=4)})
    assert (check["variable"], check["value"], check["example"]) == ("app_database_pool_size", 4, 8)


def test_pool_size_follows_the_worker_class():
    sync = one(gunicorn_worker_class="sync", gunicorn_threads=4)
    gevent = one(gunicorn_worker_class="gevent", gunicorn_threads=4)
    assert sync["plan"]["app_database_pool_size"] == 1
    assert gevent["plan"]["app_database_pool_size"] == 8
    # Requests of a gevent worker share a thread, so a small pool may suffice.
    few = one(gunicorn_worker_class="gevent", gunicorn_threads=4, app_database_pool_size=2)
    assert size_checks({"few": few, "sync": sync}) == []


def test_pool_too_large_for_the_database_is_rejected():
    checks = size_checks({"one": one(1960, 2, app_database_pool_size=500)})
    assert failing(checks)[0] == "app_database_pool_size"
    assert checks[0]["example"] == 4


def test_pools_that_exceed_the_connections_are_rejected_with_the_numbers():
    web = host(1960, 2, ["app"])
    database = host(1960, 2, ["database"], mysql_max_connections=100)
    (check,) = size_checks(planned(web1=web, web2=web, db=database))
    assert (check["variable"], check["value"], check["example"]) == (
        "mysql_max_connections",
        100,
        122,
    )
    assert (
        "web1: 2 releases × (5 workers + 2 processes) × app_database_pool_size 4"
        in (check["reason"])
    )


def test_connection_limit_far_above_the_pools_is_rejected():
    (check, *_) = size_checks({"one": one(1960, 2, mysql_max_connections=5000)})
    assert check["variable"] == "mysql_max_connections"
    assert check["remedy"].startswith("Remove it")


def test_small_database_for_many_hosts_is_rejected():
    webs = {f"web{number}": host(7940, 4, ["app"]) for number in range(10)}
    checks = size_checks(planned(db=host(960, 1, ["database"]), **webs))
    assert failing(checks)[0] == "mysql_max_connections"
    assert "Use a database host with more memory" in checks[0]["remedy"]
