"""The status of a host, from the output of its programs."""

from __future__ import annotations

import pytest

from flaskstack import host_status

SHOWN = """Id=shop-worker@1.service
Type=exec
ActiveState=activating
SubState=auto-restart
Result=exit-code
ConditionResult=yes

Id=nginx.service
Type=forking
ActiveState=inactive
SubState=dead
Result=success
ConditionResult=yes

Id=package-check.service
Type=oneshot
ActiveState=failed
SubState=failed
Result=exit-code
ConditionResult=yes

Id=once.service
Type=oneshot
ActiveState=inactive
SubState=dead
ConditionResult=yes

Id=other-machine.service
Type=simple
ActiveState=inactive
ConditionResult=no

Id=on-demand.service
Type=simple
ActiveState=inactive
ConditionResult=yes
TriggeredBy=on-demand.socket

Id=ssh.service
Type=notify
ActiveState=active
SubState=running
ConditionResult=yes
"""
MARIADB = """*************************** 1. row ***************************
                   Slave_IO_State:
                      Master_Host: 10.0.0.9
                 Slave_IO_Running: {io}
                Slave_SQL_Running: Yes
            Seconds_Behind_Master: {lag}
          Slave_SQL_Running_State: Slave has read all relay log
"""
MYSQL = """*************************** 1. row ***************************
                  Source_Host: 10.0.0.9
           Replica_IO_Running: Yes
          Replica_SQL_Running: Yes
        Seconds_Behind_Source: 3
"""
SIMULATED = """Reading package lists...
Inst openssl [3.0.1] (3.0.2 Debian-Security:12/oldstable-security [amd64])
Inst libc6 [2.36] (2.37 Ubuntu:24.04/noble-updates, Ubuntu:24.04/noble-security [amd64]) []
Inst bash [5.2] (5.2.1 Debian:12.15/oldstable [amd64])
Conf openssl (3.0.2 Debian-Security:12/oldstable-security [amd64])
"""
METRICS = """# HELP flaskstack_certificate_expiry_timestamp_seconds Expiry
flaskstack_certificate_expiry_timestamp_seconds{app="shop"} 1864000
flaskstack_certificate_failed{app="shop"} 1
flaskstack_certificate_is_fallback{app="shop"} 0
flaskstack_backup_last_success_timestamp_seconds{app="shop",job="run"} 993600
flaskstack_backup_failed{app="shop",job="run"} 0
flaskstack_backup_max_age_seconds{app="shop",job="run"} 93600
"""
NOW = 1_000_000.0


def outputs(**texts):
    """Return a `run` in which the named programs print a text, and all others are missing."""

    def run(argv):
        assert argv[0] == "timeout"
        if (name := argv[2].replace("-", "_")) not in texts:
            return 127, "", "timeout: failed to run command"
        text = texts[name]
        return 0, text(argv) if callable(text) else text, ""

    return run


@pytest.fixture
def metrics(tmp_path, monkeypatch):
    monkeypatch.setattr(host_status, "METRICS", tmp_path)
    (tmp_path / "shop_certificate.prom").write_text(METRICS)
    return host_status.read_metrics()


def test_units_that_should_run():
    def systemctl(argv):
        if "show" in argv:
            assert "getty@.service" not in argv
            return SHOWN
        return "ssh.service enabled enabled\ngetty@.service enabled enabled\n"

    assert host_status.units(outputs(systemctl=systemctl)) == {
        "shop-worker@1.service": "restarting (exit-code)",
        "nginx.service": "inactive",
        "package-check.service": "failed (exit-code)",
    }
    assert host_status.units(outputs()) == {}


@pytest.mark.parametrize(
    ("client", "text", "channel"),
    [
        ("mariadb", MARIADB.format(io="Yes", lag=0), {"running": True, "lag": 0}),
        ("mariadb", MARIADB.format(io="Connecting", lag="NULL"), {"running": False, "lag": -1}),
        ("mysql", MYSQL, {"running": True, "lag": 3}),
    ],
)
def test_replication(client, text, channel):
    found = host_status.replication(outputs(**{client: text}))
    assert found == [{"source": "10.0.0.9"} | channel]
    assert host_status.replication(outputs(mariadb="")) == []
    assert host_status.replication(outputs()) == []


def test_bans():
    text = "[{'sshd': ['192.0.2.1', '2001:db8::1']}, {'shop-probes': []}]\n"
    assert host_status.bans(outputs(fail2ban_client=text)) == {"sshd": 2, "shop-probes": 0}
    assert host_status.bans(outputs()) == {}


def test_security_updates_of_both_distributions():
    found = host_status.updates(outputs(apt_get=SIMULATED))
    assert (found["packages"], found["security"], found["names"]) == (3, 2, ["openssl", "libc6"])
    assert host_status.updates(outputs())["security"] == -1  # unknown, not 0


def test_pending_restarts():
    text = "NEEDRESTART-VER: 3.6\nNEEDRESTART-KSTA: {}\nNEEDRESTART-SVC: nginx.service\n"
    assert host_status.restarts(outputs(needrestart=text.format(1))) == ["nginx.service"]
    assert host_status.restarts(outputs(needrestart=text.format(3))) == ["reboot", "nginx.service"]
    assert host_status.restarts(outputs()) == []


def test_failed_logins():
    text = """Failed password for root from 192.0.2.1 port 22 ssh2
Invalid user admin from 192.0.2.2 port 4711
Connection closed by authenticating user root 192.0.2.2 port 4712 [preauth]
"""
    found = host_status.failed_logins(outputs(journalctl=text))
    assert found == {"attempts": 3, "addresses": 2}


def test_site_errors():
    lines = ['{"app":"shop","status":503,"bytes_sent":1}', '{"status":500,"uri":"/"}']
    lines += [
        '*1 connect() failed: "status":502,',
        '{"uri":"\\"status\\":502,","status":404,"x":1}',
    ]
    found = outputs(journalctl="\n".join(lines))
    assert host_status.site_errors(found, "shop") == 2


def test_versions_of_installed_packages():
    text = "ii |nginx|1.22.1-9\nrc |mysql-server|8.0\nii |redis-server|5:7.0.15-1\n"
    found = host_status.versions(outputs(dpkg_query=text))
    assert found["nginx"] == "1.22.1-9"
    assert found["redis-server"] == "7.0.15-1"
    assert "mysql-server" not in found
    assert found["system"]
    assert found["kernel"]


def test_certificates_and_backups(metrics):
    (certificate,) = host_status.certificates(metrics, NOW)
    assert certificate == {"app": "shop", "days": 10, "failed": True, "fallback": False}
    (backup,) = host_status.backups(metrics, NOW)
    names = {"app": "shop", "job": "run"}
    assert backup == names | {"age": 6400, "max_age": 93600, "failed": False}
    labels = {"app": "shop", "job": "run"}
    samples = [("flaskstack_backup_failed", labels, 1.0)]
    unlimited = {"age": -1, "max_age": 0, "failed": True}
    assert host_status.backups(samples, NOW) == [labels | unlimited]


def test_memory_of_services(monkeypatch):
    shown = "Id=nginx.service\nControlGroup=/a\nMemoryMax=104857600\nActiveState=active\n\n"
    shown += "Id=redis-server@shop-queue.service\nControlGroup=/b\nMemoryMax=infinity\n"
    shown += "ActiveState=active\n\nId=mysql.service\nControlGroup=\nActiveState=inactive\n"
    monkeypatch.setattr(host_status, "allocated", lambda group: {"/a": 40, "/b": 7}[group])
    found = host_status.memory(outputs(systemctl=shown))
    assert found["services"] == [
        {"unit": "nginx.service", "used": 40, "limit": 100},
        {"unit": "redis-server@shop-queue.service", "used": 7, "limit": 0},
    ]
    assert 0 < found["available"] <= found["total"]


def test_status_of_this_machine():
    """All parts work without the programs, and the table shows them."""
    found = host_status.host_status(outputs())
    assert found["disks"][0]["size"] > 0
    texts = host_status.host_texts(found)
    assert texts["units"] == "ok"
    assert texts["backup"] == "-"
    assert texts["pending"] == "updates unknown"


def test_disks_are_directories_and_once_per_device(tmp_path):
    (tmp_path / "hosts").touch()
    lines = [
        f"/dev/vda {tmp_path}/hosts ext4 rw 0 0",  # containers have mounted files
        f"/dev/vda {tmp_path} ext4 rw 0 0",
        "/dev/vda / ext4 rw 0 0",
        f"/dev/vdb {tmp_path} ext4 ro 0 0",
        f"proc {tmp_path} proc rw 0 0",
    ]
    (tmp_path / "mounts").write_text("\n".join(lines))
    assert [disk["path"] for disk in host_status.disks(tmp_path / "mounts")] == [str(tmp_path)]


def test_short_texts():
    assert host_status.pending_text(0, []) == "none"
    assert (
        host_status.pending_text(2, ["reboot", "nginx.service"])
        == "2 security updates, reboot, 1 restart"
    )
    services = [
        {"unit": "nginx.service", "used": 40, "limit": 100},
        {"unit": "mariadb.service", "used": 900, "limit": 1000},
        {"unit": "shop.service", "used": 5, "limit": 0},
    ]
    assert host_status.plan_text(services) == "mariadb 90%"
    assert host_status.plan_text(services[2:]) == "-"
    assert host_status.since_text("1970-01-01T00:00:10Z", 190) == "1970-01-01T00:00:10Z (3 min)"
    assert host_status.since_text("", 190) == "-"


JOB = {"app": "shop", "job": "run", "age": 90000, "max_age": 90001, "failed": False}
FINE = {
    "site_errors": 9,
    "units": {},
    "disks": [{"path": "/", "used": 84, "inodes": 10}],
    "memory": {
        "total": 1000,
        "available": 60,
        "services": [{"unit": "nginx.service", "used": 89, "limit": 100}],
    },
    "replication": [{"source": "a", "running": True, "lag": 59}],
    "backups": [JOB],
    "certificates": [{"app": "shop", "days": 7, "failed": False, "fallback": True}],
    "updates": {"security": 0, "lists": 90000},
    "restarts": ["nginx.service"],
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"site_errors": 10}, "10 requests failed with 5xx in 5 minutes"),
        ({"units": {"nginx.service": "failed"}}, "nginx.service is failed"),
        ({"disks": [{"path": "/", "used": 85, "inodes": 1}]}, "/ is 85 % full"),
        ({"disks": [{"path": "/", "used": 1, "inodes": 90}]}, "/ is 90 % out of inodes"),
        (
            {"memory": {"total": 1000, "available": 49, "services": []}},
            "only 49 of 1000 MiB of memory are available",
        ),
        (
            {"memory": FINE["memory"] | {"services": [{"unit": "a", "used": 90, "limit": 100}]}},
            "a uses 90 of 100 MiB",
        ),
        (
            {"replication": [{"source": "a", "running": False, "lag": -1}]},
            "replication from a is stopped",
        ),
        (
            {"replication": [{"source": "a", "running": True, "lag": 60}]},
            "replication from a is 60 s behind",
        ),
        (
            {"backups": [JOB | {"age": 90001}]},
            "backup of shop, job run: 25 h",
        ),
        (
            {"backups": [JOB | {"job": "drill", "age": -1, "max_age": 0, "failed": True}]},
            "backup of shop, job drill: none yet, failed",
        ),
        (
            {"backups": [JOB | {"job": "ship", "age": 660, "max_age": 660}]},
            "backup of shop, job ship: 11 min",
        ),
        (
            {"certificates": [{"app": "shop", "days": 6, "failed": True}]},
            "certificate of shop: 6 days left, the last renewal failed",
        ),
        ({"updates": {"security": -1, "lists": 300000}}, "the package lists are 3 d old"),
        ({"updates": {"security": 2, "lists": 1}}, "2 security updates pending"),
        ({"updates": {"security": 0, "lists": 300000}}, "the package lists are 3 d old"),
        ({"restarts": ["reboot"]}, "a reboot is pending"),
    ],
)
def test_problems(change, problem):
    assert list(host_status.host_problems(FINE)) == []
    assert list(host_status.host_problems(FINE | change)) == [problem]


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (121, "2 min"), (7200, "2 h"), (200000, "2 d")]
)
def test_age(seconds, text):
    assert host_status.age(seconds) == text
