"""Prometheus gets the metrics of all exporters, and its alerts fire."""

import json

import pytest

from helpers.repository import ROOT
from helpers.wait import wait_for

testinfra_hosts = ["ansible://data"]

TARGETS = {
    *(("node", name) for name in ("app-1", "app-2", "data")),
    *(("nginx", name) for name in ("app-1", "app-2")),
    *(("app", name) for name in ("app-1", "app-2")),
    ("mysqld", "data"),
    ("redis", "data"),
}
# A metric of each exporter with a value that only a working one has.
METRICS = [
    "nginx_http_requests_total > 0",
    "mysql_global_status_uptime > 0",
    'redis_memory_max_bytes{redis="cache"} > 0',
    'redis_memory_max_bytes{redis="queue"} > 0',
    'node_systemd_unit_state{host="app-2", name="nginx.service", state="active"} == 1',
    'flaskstack_app_healthy{host="app-2", app="sample"} == 1',
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


DASHBOARD = json.loads((ROOT / "roles/monitoring/files/grafana/flaskstack.json").read_text())
# Panels that are empty here: the site has no certificate, and no unit restarts.
EMPTY = {"Days until a certificate expires", "Restarts of units in ten minutes"}


def test_panels_of_the_dashboard_have_data(query):
    expressions = {
        target["expr"].replace("$host", "app-1|data"): panel["title"]
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    }

    def complete():
        assert {title for text, title in expressions.items() if not query(text)} <= EMPTY
        return True

    wait_for(complete, 60)


def test_alert_reaches_alertmanager(host, get, query):
    host.check_output("systemctl restart redis-server@sample-queue")
    wait_for(lambda: query('ALERTS{alertname="RedisRestarted", redis="queue"}'), 60)
    alerts = "http://127.0.0.1:9093/api/v2/alerts"
    wait_for(lambda: "RedisRestarted" in get(alerts), 60)


def test_no_alert_is_wrong(query):
    """No alert pages on a healthy site. Alerts of the deploys that failed in earlier tests end."""

    def nothing_fires():
        firing = query('ALERTS{alertstate="firing", severity="page"}')
        assert [one["metric"] for one in firing] == []
        return True

    wait_for(nothing_fires, 60)
