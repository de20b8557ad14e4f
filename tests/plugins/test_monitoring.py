"""Exporters of hosts, targets of Prometheus, firewall rules and rejected settings."""

from __future__ import annotations

import pytest

from firewall import firewall_services
from monitoring import (
    listen_addresses,
    monitoring_checks,
    monitoring_memory,
    monitoring_parts,
    monitoring_services,
    monitoring_templates,
    scrape_targets,
)
from plan_inputs import plan_inputs
from plan_sizes import plan_sizes

GROUPS = {
    "all": ["web", "data"],
    "edge": ["web"],
    "app": ["web"],
    "database": ["data"],
    "cache": ["data"],
    "queue": ["data"],
}
HOSTVARS = {
    "web": {
        "monitoring_server": "data",
        "monitoring_address": "10.0.0.1",
        "firewall_addresses": ["10.0.0.1"],
    },
    "data": {
        "monitoring_server": "data",
        "monitoring_address": "10.0.0.2",
        "firewall_addresses": ["10.0.0.2", "fd00::2"],
    },
}
SETTINGS = {
    "monitoring_enabled": True,
    "monitoring_server": "data",
    "monitoring_address": "10.0.0.1",
    "monitoring_sources": [],
    "monitoring_app_port": 9101,
    "monitoring_redis_port": 9121,
    "monitoring_interval": 60,
    "monitoring_scrape_interval": 15,
    "monitoring_retention": 15,
    "monitoring_memory_limit": 256,
    "monitoring_receiver": {},
}
ALL = ["edge", "app", "database", "cache", "queue"]


def parts(groups=ALL, enabled=True, owner=True, serves=False):
    return monitoring_parts(groups, "shop", enabled, owner, serves)


def test_host_has_the_exporters_of_its_groups():
    assert parts(["edge"])["units"] == [
        "prometheus-node-exporter.service",
        "prometheus-nginx-exporter.service",
        "shop.status.timer",
    ]
    assert parts(["cache"])["units"][1:] == ["shop.redis-exporter.service", "shop.status.timer"]
    assert parts(["app"])["units"][1:] == ["shop.exporter.service", "shop.status.timer"]
    assert "prometheus-mysqld-exporter.service" in parts(["database"])["units"]
    assert len(parts()["units"]) == 6


def test_disabled_monitoring_removes_everything():
    enabled = parts(serves=True)
    disabled = monitoring_parts(ALL, "shop", False, True, False, recorded=enabled["units"])
    assert (disabled["packages"], disabled["files"], disabled["units"]) == ([], {}, [])
    assert set(enabled["files"]) < set(disabled["absent"])
    assert disabled["stopped"] == [*enabled["units"], "shop.status.service"]
    assert enabled["absent"] == enabled["stopped"] == []


def test_units_that_a_host_has_no_more_are_stopped():
    """Prometheus moved to another host; the shared exporters have another owner."""
    before = parts(serves=True)["units"]
    moved = monitoring_parts(ALL, "shop", True, True, False, recorded=before)
    assert moved["stopped"] == ["prometheus.service", "prometheus-alertmanager.service"]
    assert monitoring_parts(ALL, "shop", True, False, False, recorded=before)["stopped"] == []


def test_other_apps_leave_the_exporters_of_the_host_alone():
    other = parts(owner=False, serves=True)
    assert other["units"] == [
        "shop.redis-exporter.service",
        "shop.exporter.service",
        "shop.status.timer",
    ]
    every = [*other["files"], *other["absent"]]
    assert not [name for name in every if "prometheus-node" in name or "prometheus.yml" in name]
    assert "prometheus-node-exporter" in other["packages"]  # it creates the user


def test_packaged_redis_exporter_does_not_run():
    """Its unit listens on all addresses, without an account."""
    assert "prometheus-redis-exporter.service" in parts()["unused"]
    assert "prometheus-redis-exporter.service" not in parts(["edge"])["unused"]


def test_server_has_prometheus_and_alertmanager():
    serving, plain = parts(serves=True), parts()
    added = ["prometheus.service", "prometheus-alertmanager.service"]
    assert [unit for unit in serving["units"] if unit not in plain["units"]] == added
    assert set(plain["absent"]) == set(serving["files"]) - set(plain["files"])
    assert serving["modes"]["/etc/flaskstack/monitoring/alertmanager.yml"] == "0640"
    assert serving["modes"]["/etc/flaskstack/monitoring/shop-redis.json"] == "0640"


def test_templates_of_files():
    commands = {unit: {"command": unit} for unit in parts(serves=True)["units"]}
    found = {entry["path"]: entry for entry in monitoring_templates(parts()["files"], commands)}
    units = "/etc/systemd/system"
    drop_in = found[f"{units}/prometheus-nginx-exporter.service.d/flaskstack.conf"]
    assert drop_in["src"] == "etc/systemd/system/exporter.conf.j2"
    assert drop_in["vars"]["exporter"]["command"] == "prometheus-nginx-exporter.service"
    program = found["/usr/local/lib/flaskstack/shop-app-exporter.py"]
    assert program["src"] == "usr/local/lib/flaskstack/app_exporter.py"
    assert program["static"]
    assert found[f"{units}/shop.status.timer"]["src"] == "etc/systemd/system/app.status.timer.j2"


def test_listen_addresses():
    found = listen_addresses("10.0.0.1", {"app": "9201", "redis": 9221})
    assert (found["node"], found["app"], found["redis"]) == (
        "10.0.0.1:9100",
        "10.0.0.1:9201",
        "10.0.0.1:9221",
    )
    assert listen_addresses("::1", {})["node"] == "[::1]:9100"


def test_prometheus_scrapes_each_exporter():
    jobs = scrape_targets(HOSTVARS, GROUPS, "data", "shop")
    assert [config["targets"] for config in jobs["node"]] == [["10.0.0.1:9100"], ["10.0.0.2:9100"]]
    assert jobs["app"] == [{"targets": ["10.0.0.1:9101"], "labels": {"host": "web", "app": "shop"}}]
    cache, queue = jobs["redis"]
    assert cache["targets"] == queue["targets"] == ["10.0.0.2:9121"]
    assert cache["labels"]["__param_target"] == "unix:///run/redis-shop-cache/redis.sock"
    assert queue["labels"]["redis"] == "queue"
    one = scrape_targets({"web": {}}, {"all": ["web"], "edge": ["web"]}, "web", "shop")
    assert one["nginx"][0]["targets"] == ["127.0.0.1:9113"]
    assert "redis" not in one


def test_firewall_accepts_prometheus_only():
    rules = monitoring_services(HOSTVARS, GROUPS, "web")
    assert {rule["port"] for rule in rules} == {"9100", "9101", "9113"}
    assert {tuple(rule["sources"]) for rule in rules} == {("10.0.0.2", "fd00::2")}
    assert monitoring_services(HOSTVARS, GROUPS, "data") == []
    own = {
        "web": HOSTVARS["web"] | {"monitoring_server": "", "monitoring_sources": ["10.9.0.0/24"]}
    }
    assert monitoring_services(own, GROUPS, "web") == []
    own["web"]["monitoring_enabled"] = True
    assert monitoring_services(own, GROUPS, "web")[0]["sources"] == ["10.9.0.0/24"]
    own["web"]["monitoring_address"] = "127.0.0.1"
    assert monitoring_services(own, GROUPS, "web") == []


def test_firewall_has_the_rules_of_exporters():
    settings = {"https": False, "web_sources": []}
    rules = firewall_services(HOSTVARS, GROUPS, "web", settings)
    assert [rule["comment"] for rule in rules][:2] == ["web", "node metrics"]


def test_plan_has_the_memory_of_the_monitoring():
    assert monitoring_memory({}, ["app"], "web") == 0
    assert monitoring_memory({"monitoring_enabled": True}, ["app", "edge"], "web") == 60
    assert monitoring_memory(HOSTVARS["data"], ["cache", "queue"], "data") == 40 + 32 + 256
    limited = HOSTVARS["data"] | {"monitoring_memory_limit": "100"}
    assert monitoring_memory(limited, [], "data") == 20 + 32 + 100
    site = plan_sizes(plan_inputs(GROUPS, {"web": PLANNED, "data": PLANNED | HOSTVARS["data"]}))
    assert site["data"]["parts"]["monitoring"] == 60 + 32 + 256
    assert "monitoring" not in site["web"]["parts"]


PLANNED = {"app_name": "shop", "host_memory": 2048, "host_cpus": 2}


def rejected(local=None, host="web", hostvars=HOSTVARS, **settings):
    checks = monitoring_checks(SETTINGS | settings, hostvars, GROUPS, host, local or {}, "shop")
    return [check["variable"] for check in checks if not check["ok"]]


def test_valid_settings():
    assert rejected() == []
    assert rejected(host="data", monitoring_address="127.0.0.1") == []
    assert rejected(monitoring_enabled=False, monitoring_address="::1") == []
    assert rejected(monitoring_server="") == []


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "8.8.8.8", "2a00:1450::1", "web", "", "10.0.0.0/8"]
)
def test_public_addresses_are_rejected(address):
    assert "monitoring_address" in rejected(monitoring_address=address)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("monitoring_server", "elsewhere"),
        ("monitoring_address", "127.0.0.1"),  # Prometheus is on another host
        ("monitoring_sources", ["a name"]),
        ("monitoring_app_port", 9100),
        ("monitoring_app_port", 9090),
        ("monitoring_redis_port", 9101),
        ("monitoring_redis_port", 70000),
        ("monitoring_interval", 5),
        ("monitoring_interval", 301),
        ("monitoring_scrape_interval", 0),
        ("monitoring_retention", 0),
        ("monitoring_memory_limit", 10),
        ("monitoring_receiver", {"name": "me"}),
    ],
)
def test_invalid_settings_are_rejected(name, value):
    assert rejected(**{name: value}) == [name]


def test_prometheus_needs_an_address_of_its_host():
    hostvars = HOSTVARS | {"data": {}}
    assert rejected(hostvars=hostvars) == ["firewall_addresses"]


def test_two_apps_need_different_ports():
    other = {"app": "blog", "address": "127.0.0.1", "ports": [9101, 9121]}
    local = {"flaskstack_monitoring_blog": other}
    assert rejected(local) == ["monitoring_app_port", "monitoring_redis_port"]
    assert rejected(local, monitoring_app_port=9131, monitoring_redis_port=9132) == []
    assert rejected({"flaskstack_monitoring_shop": other | {"app": "shop"}}) == []
