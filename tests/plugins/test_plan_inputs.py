"""Inputs of the plan come from the inventory first, then from facts."""

import pytest

from plan_inputs import input_checks, plan_inputs
from plan_sizes import plan_sizes
from plan_tables import plan_tables
from plan_timeouts import plan_timeouts

FACTS = {
    "memtotal_mb": 960,
    "processor_vcpus": 1,
    "distribution": "Debian",
    "distribution_version": "13.2",
}


def inputs(**variables):
    groups = {"all": ["one"], "app": ["one"], "database": ["one"], "web": ["one"]}
    return plan_inputs(groups, {"one": {"ansible_facts": FACTS, "app_name": "shop"} | variables})


def test_size_comes_from_facts():
    one = inputs()["one"]
    assert (one["memory"], one["cpus"], one["tiers"]) == (960, 1, ["app", "database"])


def test_backups_have_memory_in_the_plan():
    for store in ("", "/srv/backups"):
        site = plan_sizes(plan_timeouts(inputs(backup_repository=store)))
        assert site["one"]["parts"].get("backups", 0) == (96 if store else 0)


def test_socket_io_has_one_worker_unless_the_inventory_sets_more():
    paths = ["/ws/", "/socket.io/"]
    assert inputs(app_websocket_paths=paths)["one"]["given"] == {"gunicorn_workers": 1}
    more = inputs(app_websocket_paths=paths, gunicorn_workers=4)["one"]["given"]
    assert more == {"gunicorn_workers": 4}
    assert inputs(app_websocket_paths=["/ws/"])["one"]["given"] == {}


def test_inventory_wins_over_facts():
    one = inputs(host_memory=2048, host_cpus="2")["one"]
    assert (one["memory"], one["cpus"]) == (2048, 2)


@pytest.mark.parametrize(
    ("variables", "provider"),
    [
        ({}, "mariadb"),
        ({"mysql_provider": "mysql"}, "mysql"),
        ({"mysql_apt_source": True}, "mysql"),
        ({"mysql_provider": "oracle"}, "mariadb"),
        ({"ansible_facts": {"distribution": "Ubuntu", "distribution_version": "24.04"}}, "mysql"),
        ({"ansible_facts": {"distribution": "Debian", "distribution_version": "n/a"}}, "mysql"),
        ({"ansible_facts": {}}, "mysql"),
    ],
)
def test_provider_is_the_one_that_the_role_selects(variables, provider):
    assert inputs(**variables)["one"]["provider"] == provider


@pytest.mark.parametrize(
    ("processes", "limits"),
    [
        ([], []),
        (None, []),
        ([{"name": "worker"}, {"name": "ticker", "instances": 3}], [0, 0, 0, 0]),
        ([{"name": "worker", "memory_limit": 200, "instances": "2"}], [200, 200]),
        ([{"name": "idle", "instances": 0}, {"name": "nightly", "schedule": "daily"}], [0]),
        ("worker", []),
    ],
)
def test_background_processes_are_counted_with_their_limits(processes, limits):
    assert inputs(app_processes=processes)["one"]["processes"] == limits


@pytest.mark.parametrize("named", [{}, {"app_singleton_host": "two"}])
def test_singleton_counts_on_its_host_only(named):
    processes = [{"name": "worker"}, {"name": "ticker", "singleton": True, "memory_limit": 50}]
    variables = {"ansible_facts": FACTS, "app_name": "shop", "app_processes": processes} | named
    groups = {"all": ["db", "two", "one"], "app": ["one", "two"], "database": ["db"]}
    site = plan_inputs(groups, dict.fromkeys(groups["all"], variables))
    assert {host: inputs["processes"] for host, inputs in site.items()} == {
        "db": [],
        "one": [0] if named else [0, 50],
        "two": [0, 50] if named else [0],
    }


@pytest.mark.parametrize(
    ("value", "given"),
    [("restart", {"release_strategy": "restart"}), ("at once", {}), (["switch"], {})],
)
def test_release_strategy_of_the_inventory_is_used(value, given):
    assert inputs(release_strategy=value)["one"]["given"] == given


@pytest.mark.parametrize("value", [5, 600, "30", " 30 "])
def test_whole_numbers_in_range_are_accepted(value):
    site = inputs(request_timeout=value)
    assert site["one"]["given"] == {"request_timeout": int(value)}
    assert input_checks(site) == []


@pytest.mark.parametrize("value", [0, -1, 4, 601, 2.5, True, None, "", "30s", [30], "²"])
def test_other_values_are_rejected_with_the_range(value):
    site = inputs(request_timeout=value)
    assert site["one"]["given"] == {}
    (check,) = input_checks(site)
    assert check["variable"] == "request_timeout"
    assert check["value"] == value
    assert check["reason"] == "must be a whole number of seconds from 5 to 600 (on one)"
    assert check["example"] == 30


def test_same_error_on_two_hosts_is_reported_once():
    variables = {"ansible_facts": FACTS, "request_timeout": 0}
    variables["app_name"] = "shop"
    groups = {"all": ["one", "two"], "app": ["one", "two"]}
    site = plan_inputs(groups, {"one": variables, "two": variables})
    (check,) = input_checks(site)
    assert check["reason"].endswith("(on one, two)")


def test_host_without_facts_needs_its_size_in_the_inventory():
    checks = input_checks(inputs(ansible_facts={}))
    assert [check["variable"] for check in checks] == ["host_memory", "host_cpus"]
    assert input_checks(inputs(ansible_facts={}, host_memory=960, host_cpus=1)) == []


SHOP = {"ansible_facts": FACTS, "app_name": "shop"}


@pytest.mark.parametrize(
    ("groups", "hosts", "variable", "words"),
    [
        ({"apps": ["one"]}, {}, "group apps", "Name it app in the inventory's hosts.yml"),
        ({"webservers": ["one"]}, {}, "group app", "Name the app's hosts under it"),
        ({"app": ["one"], "databases": ["one"]}, {}, "group databases", "Name it database in"),
        ({"app": ["one"], "mysql": ["one"]}, {}, "group mysql", "Name it database in"),
        ({"app": ["one"], "edge": ["two"]}, {}, "group edge", "Add two to group app"),
        ({"app": ["one"], "cache": ["two"]}, {"app_name": "blog"}, "app_name", "a folder beside"),
        ({"app": ["one"], "cache": ["two"]}, {"ansible_host": "192.0.2.1"}, "host two", "Name one"),
        ({"app": ["one"], "london": ["one"], "database": ["one"], "db": ["one"]}, {}, "", ""),
        ({"app": ["one"]}, {"ansible_host": "192.0.2.1"}, "", ""),
        ({"app": ["one", "two"]}, {"ansible_host": "192.0.2.1", "ansible_port": 23}, "", ""),
    ],
)
def test_wrong_groups_and_hosts_are_reported(groups, hosts, variable, words):
    """`hosts` holds the variables of host two."""
    both = {"one": SHOP | {"ansible_host": "192.0.2.1"}, "two": SHOP | hosts}
    checks = input_checks(plan_inputs({"all": ["one", "two"]} | groups, both))
    assert [check["variable"] for check in checks][:1] == [variable][: len(variable)]
    assert words in str([check["remedy"] for check in checks])


def test_app_needs_a_name():
    site = plan_inputs({"all": ["one"], "app": ["one"]}, {"one": {"ansible_facts": FACTS}})
    assert [check["variable"] for check in input_checks(site)] == ["app_name"]
    site = plan_inputs(
        {"all": ["one", "two"], "app": ["one"]},
        {"one": {"ansible_facts": FACTS}, "two": {"ansible_facts": FACTS}},
    )
    assert [check["variable"] for check in input_checks(site)] == ["app_name"]


def test_plan_of_a_shared_server_has_the_owners_settings():
    """Another app owns the server, so this app's settings of it are ignored."""
    settings = {"mysql_innodb_buffer_pool_size": 320, "mysql_wait_timeout": 7200}
    settings |= {"mysql_performance_schema": False, "mysql_max_connections": 150}
    server = {"flaskstack_mysql": {"app": "blog", "plan": settings}}
    given = {"mysql_innodb_buffer_pool_size": 64, "mysql_max_connections": 20}
    site = inputs(ansible_facts=FACTS | {"ansible_local": server}, **given)
    assert site["one"]["given"]["mysql_innodb_buffer_pool_size"] == 320
    tables = plan_tables(plan_sizes(plan_timeouts(site)))
    shown = [" ".join(line.split()) for line in tables.splitlines()]
    assert "MySQL is set up by the inventory of blog" in shown
    assert "MySQL connections mysql_max_connections 150" in shown
    assert "idle connection mysql_wait_timeout 7200" in shown
    assert "MySQL's buffer pool may hold, MiB 320" in shown
    server["flaskstack_mysql"]["app"] = "shop"
    own = inputs(ansible_facts=FACTS | {"ansible_local": server}, **given)
    assert own["one"]["given"]["mysql_innodb_buffer_pool_size"] == 64
