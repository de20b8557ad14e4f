"""Timeouts are strictly ordered for any `request_timeout`."""

import itertools

import pytest

from helpers.plans import failing, host, planned
from plan_timeouts import timeout_checks, timeouts


def test_order_is_strict_for_any_request_timeout():
    for request_timeout in range(5, 601):
        clock = timeouts(request_timeout)
        chain = ("mysql_innodb_lock_wait_timeout", "mysql_statement_timeout", "gunicorn_timeout")
        values = [0, *(clock[name] for name in chain), clock["nginx_proxy_read_timeout"]]
        assert all(inner < outer for inner, outer in itertools.pairwise(values))
        assert all(isinstance(value, int) and value >= 1 for value in clock.values())
        assert timeout_checks(planned(one=host(request_timeout=request_timeout))) == []


def test_usual_timeouts():
    assert timeouts(30) == {
        "mysql_innodb_lock_wait_timeout": 15,
        "mysql_statement_timeout": 22,
        "gunicorn_timeout": 30,
        "gunicorn_graceful_timeout": 30,
        "gunicorn_stop_timeout": 40,
        "nginx_proxy_read_timeout": 35,
        "nginx_proxy_send_timeout": 30,
        "nginx_proxy_connect_timeout": 5,
        "mysql_connect_timeout": 5,
        "mysql_net_read_timeout": 30,
        "mysql_net_write_timeout": 30,
        "mysql_wait_timeout": 3600,
        "mysql_interactive_timeout": 3600,
        "app_database_pool_recycle": 1800,
    }


def test_inventory_wins():
    plan = planned(one=host(request_timeout=60, mysql_statement_timeout=50))["one"]["plan"]
    assert plan["mysql_statement_timeout"] == 50
    assert plan["gunicorn_timeout"] == 60


CONTRADICTIONS = [
    ({"mysql_innodb_lock_wait_timeout": 22}, "mysql_innodb_lock_wait_timeout"),
    ({"mysql_statement_timeout": 30}, "mysql_statement_timeout"),
    ({"gunicorn_graceful_timeout": 35}, "gunicorn_graceful_timeout"),
    ({"gunicorn_graceful_timeout": 29}, "gunicorn_graceful_timeout"),
    ({"gunicorn_stop_timeout": 30}, "gunicorn_stop_timeout"),
    ({"nginx_proxy_read_timeout": 30}, "nginx_proxy_read_timeout"),
    ({"nginx_proxy_connect_timeout": 35}, "nginx_proxy_connect_timeout"),
    ({"app_database_pool_recycle": 3600}, "app_database_pool_recycle"),
    ({"mysql_wait_timeout": 1800}, "mysql_wait_timeout"),
]


@pytest.mark.parametrize(("given", "variable"), CONTRADICTIONS)
def test_wrong_order_is_rejected_with_a_valid_example(given, variable):
    checks = timeout_checks(planned(one=host(**given)))
    assert variable in failing(checks)
    examples = {check["variable"]: check["example"] for check in checks}
    assert timeout_checks(planned(one=host(**(given | examples)))) == []


def test_message_names_both_settings_and_their_values():
    (check,) = timeout_checks(planned(one=host(mysql_wait_timeout=10)))[:1]
    assert check["variable"] == "mysql_wait_timeout"
    assert check["value"] == 10
    assert "app_database_pool_recycle (1800)" in check["reason"]


def test_settings_of_different_hosts_are_compared():
    site = planned(
        web=host(tiers=["app", "edge"], app_database_pool_recycle=7200), db=host(tiers=["database"])
    )
    assert failing(timeout_checks(site)) == ["app_database_pool_recycle"]


def test_setting_of_a_missing_tier_is_ignored():
    site = planned(web=host(tiers=["app"], nginx_proxy_read_timeout=1, mysql_statement_timeout=99))
    assert timeout_checks(site) == []


def test_all_errors_are_reported_together():
    site = planned(one=host(mysql_statement_timeout=31, mysql_wait_timeout=60))
    assert failing(timeout_checks(site)) == ["mysql_statement_timeout", "mysql_wait_timeout"]
