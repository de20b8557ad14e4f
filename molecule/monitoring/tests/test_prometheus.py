"""Prometheus gets the metrics of all exporters, and its alerts fire."""

import pytest

from helpers.wait import wait_for

testinfra_hosts = ["ansible://data"]

TARGETS = {
    ("node", "web"),
    ("node", "data"),
    ("nginx", "web"),
    ("app", "web"),
    ("mysqld", "data"),
    ("redis", "data"),
}
# A metric of each exporter with a value that only a working one has.
METRICS = [
    "nginx_http_requests_total > 0",
    "mysql_global_status_uptime > 0",
    'redis_memory_max_bytes{redis="cache"} > 0',
    'redis_memory_max_bytes{redis="queue"} > 0',
    'node_systemd_unit_state{host="web", name="nginx.service", state="active"} == 1',
    'flaskstack_app_healthy{host="web", app="sample"} == 1',
    'flaskstack_service_memory_bytes{host="data"} > 0',
    "flaskstack_security_updates",
    "flaskstack_app_has_metrics",
]


def test_all_exporters_answer(query):
    def up():
        result = query("up == 1")
        return {(one["metric"]["job"], one["metric"]["host"]) for one in result} >= TARGETS

    wait_for(up, 60)


@pytest.mark.parametrize("expression", METRICS)
def test_exporters_can_read_their_servers(query, expression):
    wait_for(lambda: query(expression), 90)


def test_alert_reaches_alertmanager(host, query):
    host.check_output("systemctl restart redis-server@sample-queue")
    wait_for(lambda: query('ALERTS{alertname="RedisRestarted", redis="queue"}'), 60)
    alerts = "curl --silent --fail http://127.0.0.1:9093/api/v2/alerts"
    wait_for(lambda: "RedisRestarted" in host.check_output(alerts), 60)


def test_no_alert_is_wrong(query):
    """Exporters are not in the list of broken units, and nothing pages on a healthy site."""
    firing = query('ALERTS{alertstate="firing", severity="page"}')
    assert [one["metric"] for one in firing] == []
