"""Units of exporters; the configuration of Prometheus and Alertmanager, and the alerts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from base64 import b64encode
from hashlib import sha256

import pytest

from helpers.repository import ROOT

# Installed by `./stack test offline`, otherwise that of this machine.
FOLDERS = [f"{ROOT}/.local/{name}/usr/bin" for name in ("prometheus", "prometheus-alertmanager")]
PATH = ":".join([*FOLDERS, os.environ["PATH"]])
RULES = ROOT / "roles/monitoring/files/etc/flaskstack/monitoring/rules.yml"
ADMIN = {"content": b64encode(b"the password of the administrator").decode()}
ON = {"monitoring_server": "host", "__monitoring_redis_admin": ADMIN}
UNITS = "etc/systemd/system"


def tool(name, *arguments, cwd=None):
    """Return the output of a program of Prometheus; it must succeed."""
    program = shutil.which(name, path=PATH)
    assert program, f"{name} is missing; ./stack test offline unpacks it"
    done = subprocess.run(
        [program, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def configured(render, tmp_path):
    """Return a function that writes a configuration file with these variables."""

    def write(name, **variables):
        path = tmp_path / name
        path.write_text(
            render("monitoring", f"etc/flaskstack/monitoring/{name}.j2", **ON | variables)
        )
        shutil.copy(RULES, tmp_path / "rules.yml")
        return path

    return write


def test_prometheus_accepts_its_configuration(configured):
    path = configured("prometheus.yml")
    assert "SUCCESS" in tool("promtool", "check", "config", path)
    text = path.read_text()
    jobs = re.findall(r"job_name: (\w+)", text)
    assert jobs == ["prometheus", "node", "mysqld", "nginx", "app", "redis"]
    assert "unix:///run/redis-shop-queue/redis.sock" in text


@pytest.mark.parametrize(
    "receiver", [{}, {"webhook_configs": [{"url": "https://hooks.example.org/a"}]}]
)
def test_alertmanager_accepts_its_configuration(configured, receiver):
    path = configured("alertmanager.yml", monitoring_receiver=receiver)
    assert "SUCCESS" in tool("amtool", "check-config", path)
    assert ("hooks.example.org" in path.read_text()) == bool(receiver)


def test_templates_exist(evaluate):
    for entry in evaluate("monitoring", "__monitoring_templates", **ON):
        folder = "files" if entry.get("static") else "templates"
        assert (ROOT / "roles/monitoring" / folder / entry["src"]).is_file(), entry


def test_drop_ins_replace_the_command(evaluate, render):
    found = {}
    for entry in evaluate("monitoring", "__monitoring_templates", **ON):
        if "vars" in entry:
            text = render("monitoring", entry["src"], **ON | entry["vars"])
            found[entry["path"].split("/")[-2].removesuffix(".service.d")] = text
            assert text.index("ExecStart=\n") < text.index("ExecStart=/usr/bin/")
    assert "--web.listen-address=127.0.0.1:9100 " in found["prometheus-node-exporter"]
    assert r"unit-include=.+\\.service" in found["prometheus-node-exporter"]
    assert "127.0.0.1:9090 " in found["prometheus"]
    assert "MemoryMax=256M" in found["prometheus"]
    assert "MemoryMax=64M" in found["prometheus-nginx-exporter"]
    assert not re.search("address=(:|0[.])", "".join(found.values()))


def test_redis_user_has_the_password_of_the_exporter(render):
    passwords = json.loads(render("monitoring", "etc/flaskstack/monitoring/redis.json.j2", **ON))
    assert list(passwords) == [
        f"unix://{user}/run/redis-shop-{name}/redis.sock"
        for user in ("", "flaskstack-metrics@")
        for name in ("cache", "queue")
    ]
    (password,) = set(passwords.values())
    users = render("redis", "etc/redis/users.j2", item="queue", __redis_admin_password=ADMIN)
    (user,) = re.findall("^user flaskstack-metrics (.*)$", users, re.MULTILINE)
    assert f"#{sha256(password.encode()).hexdigest()}" in user
    assert "~" not in user  # no keys


def test_app_exporter_has_the_socket_and_the_path_of_the_app(render):
    template = f"{UNITS}/app.exporter.service.j2"
    text = render("monitoring", template, **ON, app_domains=["*.shop.example.org"])
    command = re.search("^ExecStart=(.*)$", text, re.MULTILINE)[1].split()
    assert command[-4:] == [
        "127.0.0.1:9101",
        "/srv/shop/web.sock",
        "/metrics",
        "www.shop.example.org",
    ]
    text = render("monitoring", template, **ON, app_metrics_path="")
    assert re.search("web.sock - localhost$", text, re.MULTILINE)


def test_password_of_redis_is_no_argument(render):
    text = render("monitoring", f"{UNITS}/app.redis-exporter.service.j2", **ON)
    assert "--redis.password-file=/etc/flaskstack/monitoring/shop-redis.json" in text


# Alerts and the samples that make them fire. All samples last for 40 minutes.
NODE = '{job="node", host="a"}'
FIRING = {
    "HostDown": {f"up{NODE}": 0},
    "ExporterDown": {f"up{NODE}": 1, 'up{job="redis", host="a"}': 0},
    "UnitDown": {'flaskstack_unit_down{host="a", unit="nginx.service"}': 1},
    "UnitRestarted": {'node_systemd_service_restart_total{host="a", name="x"}': "0x120 1x40"},
    "UnitRestarts": {'node_systemd_service_restart_total{host="a", name="x"}': "0+1x160"},
    "DiskFull": {
        'node_filesystem_avail_bytes{host="a", device="d", fstype="ext4"}': 14,
        'node_filesystem_size_bytes{host="a", device="d", fstype="ext4"}': 100,
    },
    "InodesFull": {
        'node_filesystem_files_free{host="a", device="d"}': 14,
        'node_filesystem_files{host="a", device="d"}': 100,
    },
    "MemoryLow": {
        f"node_memory_MemAvailable_bytes{NODE}": 4,
        f"node_memory_MemTotal_bytes{NODE}": 100,
    },
    "OutOfMemory": {f"node_vmstat_oom_kill{NODE}": "0+1x160"},
    "ServiceMemory": {
        'flaskstack_service_memory_bytes{host="a", unit="x"}': 90,
        'flaskstack_service_memory_limit_bytes{host="a", unit="x"}': 100,
    },
    "ClockWrong": {f"node_time_seconds{NODE}": "100+15x160"},
    "Rebooted": {
        f"node_time_seconds{NODE}": "0+15x160",
        f"node_boot_time_seconds{NODE}": 1800,
    },
    "MetricsOld": {f"flaskstack_status_timestamp_seconds{NODE}": 0},
    "AppDown": {'flaskstack_app_healthy{host="a", app="shop"}': 0},
    "SiteErrors": {'flaskstack_site_errors{host="a", app="shop"}': 10},
    "ReleasesDiffer": {
        'flaskstack_app_release_info{host="a", app="shop", release="1"}': 1,
        'flaskstack_app_release_info{host="b", app="shop", release="2"}': 1,
    },
    "NginxDown": {'nginx_up{host="a"}': 0},
    "DatabaseDown": {'mysql_up{host="a"}': 0},
    "DatabaseRestarted": {'mysql_global_status_uptime{host="a"}': 20},
    "DatabaseConnections": {
        'mysql_global_status_threads_connected{host="a"}': 91,
        'mysql_global_variables_max_connections{host="a"}': 100,
    },
    "DatabaseLocks": {'mysql_global_status_innodb_row_lock_current_waits{host="a"}': 1},
    "DatabaseBusy": {'mysql_global_status_threads_running{host="a"}': 21},
    "ReplicationStopped": {
        'mysql_slave_status_slave_io_running{host="a"}': 1,
        'mysql_slave_status_slave_sql_running{host="a"}': 0,
    },
    "ReplicationLag": {'mysql_slave_status_seconds_behind_master{host="a"}': 60},
    "RedisDown": {'redis_up{host="a", redis="queue"}': 0},
    "RedisRestarted": {'redis_uptime_in_seconds{host="a", redis="queue"}': 20},
    "QueueFull": {
        'redis_memory_used_bytes{host="a", redis="queue"}': 91,
        'redis_memory_max_bytes{host="a", redis="queue"}': 100,
    },
    "QueueNotSaved": {'redis_aof_last_write_status{host="a", redis="queue"}': 0},
    "BackupFailed": {'flaskstack_backup_failed{app="shop"}': 1},
    "BackupOld": {
        'flaskstack_backup_last_success_timestamp_seconds{app="shop", exported_job="run"}': 0,
        'flaskstack_backup_max_age_seconds{app="shop", exported_job="run"}': 1200,
    },
    "BinaryLogsOld": {
        'flaskstack_backup_last_success_timestamp_seconds{app="shop", exported_job="ship"}': 0,
        'flaskstack_backup_max_age_seconds{app="shop", exported_job="ship"}': 660,
    },
}
# The same alerts with values just outside their limits.
QUIET = {
    "HostDown": {f"up{NODE}": 1},
    "ExporterDown": {f"up{NODE}": 0, 'up{job="redis", host="a"}': 0},  # HostDown explains it
    "UnitDown": {'flaskstack_unit_down{host="b", unit="x"}': "1 _x160"},
    "UnitRestarted": {'node_systemd_service_restart_total{host="a", name="x"}': 7},
    "UnitRestarts": {'node_systemd_service_restart_total{host="a", name="x"}': 7},
    "DiskFull": {
        'node_filesystem_avail_bytes{host="a", device="d", fstype="tmpfs"}': 1,
        'node_filesystem_size_bytes{host="a", device="d", fstype="tmpfs"}': 100,
    },
    "InodesFull": {
        'node_filesystem_files_free{host="a", device="btrfs"}': 0,
        'node_filesystem_files{host="a", device="btrfs"}': 0,
        'node_filesystem_files_free{host="a", device="d"}': 16,
        'node_filesystem_files{host="a", device="d"}': 100,
    },
    "MemoryLow": {
        f"node_memory_MemAvailable_bytes{NODE}": 6,
        f"node_memory_MemTotal_bytes{NODE}": 100,
    },
    "OutOfMemory": {f"node_vmstat_oom_kill{NODE}": 3},
    "ServiceMemory": {
        'flaskstack_service_memory_bytes{host="a", unit="x"}': 89,
        'flaskstack_service_memory_limit_bytes{host="a", unit="x"}': 100,
    },
    "ClockWrong": {f"node_time_seconds{NODE}": "4+15x160"},
    "Rebooted": {f"node_time_seconds{NODE}": "600+15x160", f"node_boot_time_seconds{NODE}": 0},
    "MetricsOld": {f"flaskstack_status_timestamp_seconds{NODE}": "0+15x160"},
    "SiteErrors": {'flaskstack_site_errors{host="a", app="shop"}': 9},
    "ReleasesDiffer": {'flaskstack_app_release_info{host="a", app="shop", release="1"}': 1},
    "DatabaseRestarted": {'mysql_global_status_uptime{host="a"}': 300},
    "DatabaseConnections": {
        'mysql_global_status_threads_connected{host="a"}': 90,
        'mysql_global_variables_max_connections{host="a"}': 100,
        'mysql_global_status_connection_errors_total{host="a", error="max_connections"}': 3,
    },
    "DatabaseBusy": {'mysql_global_status_threads_running{host="a"}': 20},
    "ReplicationLag": {'mysql_slave_status_seconds_behind_master{host="a"}': 59},
    "QueueFull": {
        'redis_memory_used_bytes{host="a", redis="cache"}': 99,
        'redis_memory_max_bytes{host="a", redis="cache"}': 100,
    },
    "CertificateExpires": {'flaskstack_certificate_expiry_timestamp_seconds{app="shop"}': 700000},
    "BackupFailed": {'flaskstack_backup_failed{app="shop"}': 0},
    # After 35 minutes these are 2100 seconds old.
    "BinaryLogsOld": {
        'flaskstack_backup_last_success_timestamp_seconds{exported_job="ship"}': 0,
        'flaskstack_backup_max_age_seconds{exported_job="ship"}': 2400,
    },
    "BackupOld": {
        'flaskstack_backup_last_success_timestamp_seconds{exported_job="drill"}': 0,
        'flaskstack_backup_last_success_timestamp_seconds{exported_job="run"}': 0,
        'flaskstack_backup_max_age_seconds{exported_job="run"}': 2400,
    },
}
# Alerts that wait for hours or days, with samples that last longer.
SLOW = {
    "DiskFullSoon": {
        'node_filesystem_avail_bytes{host="a", device="d", fstype="ext4"}': "1000000-340x4000"
    },
    "SecurityUpdates": {f"flaskstack_security_updates{NODE}": 1},
    "RebootPending": {f"flaskstack_reboot_pending{NODE}": 1},
    "FailedLogins": {f"flaskstack_failed_logins{NODE}": 5001},
    "Maintenance": {'flaskstack_app_maintenance{app="shop"}': 1},
    "CertificateExpires": {'flaskstack_certificate_expiry_timestamp_seconds{app="shop"}': 1200000},
    "CertificateFailed": {'flaskstack_certificate_failed{app="shop"}': 1},
}
LATE, INTERVAL = 35, 15  # minutes until a test looks at the alerts, seconds between samples
SLOW_LATE, SLOW_INTERVAL = 180 * 60, 240


def firing(cases, folder, at=LATE, interval=INTERVAL):
    """Return the alerts that fire after `at` minutes, each with its own samples.

    promtool prints the expressions whose result is not the expected one, which is none.
    """
    number, tests = at * 60 // interval + 4, []
    for alert, samples in cases.items():
        series = [
            {"series": name, "values": str(value).replace("x160", f"x{number}")}
            if isinstance(value, str)
            else {"series": name, "values": f"{value}x{number}"}
            for name, value in samples.items()
        ]
        expression = f'ALERTS{{alertstate="firing", alertname="{alert}"}}'
        expected = [{"expr": expression, "eval_time": f"{at}m"}]
        group = {"interval": f"{interval}s", "input_series": series}
        tests.append(group | {"promql_expr_test": expected})
    every = "1m" if interval == INTERVAL else "1h"
    file = folder / "test.yml"
    content = {"rule_files": [str(RULES)], "evaluation_interval": every, "tests": tests}
    file.write_text(json.dumps(content))
    program = shutil.which("promtool", path=PATH)
    assert program, "promtool is missing; ./stack test offline unpacks it"
    command = [program, "test", "rules", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert ("SUCCESS" in output) != ("FAILED" in output), output
    return set(re.findall(r'expr: "ALERTS.*?alertname=\\"(\w+)\\"', output))


def test_alerts_fire(tmp_path):
    assert firing(FIRING, tmp_path) == FIRING.keys()


def test_slow_alerts_fire(tmp_path):
    assert firing(SLOW, tmp_path, SLOW_LATE, SLOW_INTERVAL) == SLOW.keys()
    assert firing(SLOW, tmp_path, 15) == set()


def test_alerts_are_quiet_within_their_limits(tmp_path):
    assert firing(QUIET, tmp_path) == set()


def test_every_alert_has_a_severity_an_action_and_a_test():
    text = RULES.read_text()
    alerts = re.findall("- alert: (.*)", text)
    assert set(alerts) == FIRING.keys() | SLOW.keys()
    assert len(alerts) == len(set(alerts))
    for field in ("severity: (page|ticket)", "summary: ", "action: "):
        assert len(re.findall(field, text.partition("groups:")[2])) == len(alerts), field


DASHBOARD = json.loads((ROOT / "roles/monitoring/files/grafana/flaskstack.json").read_text())


def test_dashboard_has_valid_expressions(tmp_path):
    """Promtool parses an expression as a recording rule."""
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    expressions = [target["expr"].replace("$host", ".*") for target in targets]
    expressions += [note["expr"] for note in DASHBOARD["annotations"]["list"]]
    rules = [{"record": f"rule:{i}", "expr": text} for i, text in enumerate(expressions)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(expressions)} rules found" in tool("promtool", "check", "rules", file)


def test_panels_of_the_dashboard_do_not_overlap():
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
