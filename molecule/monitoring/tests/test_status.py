"""The status screen of the inventory, and of a host."""

import json

from helpers.wait import wait_for

testinfra_hosts = ["ansible://web"]


def test_screen_of_a_healthy_site(operator, tmp_path):
    file = tmp_path / "status.json"
    done = operator.play("status", status_file=str(file))
    assert done.code == 0, done.output
    assert "2 hosts" in done.output
    report = json.loads(file.read_text())
    web, data = report["hosts"]["web"], report["hosts"]["data"]
    assert web["app"]["healthy"]
    assert data["app"] == {}
    assert web["drift"] == data["drift"] == []
    assert "mariadb-server" in data["host"]["versions"]
    assert data["host"]["units"] == web["host"]["units"] == {}


def test_drift_and_a_stopped_unit_are_problems(host, operator):
    host.check_output(
        "systemctl stop fail2ban && echo '# edited' >>/etc/nginx/sites-enabled/default"
    )
    try:
        done = operator.play("status")
    finally:
        host.check_output("systemctl start fail2ban")
        host.check_output("sed -i '/# edited/d' /etc/nginx/sites-enabled/default")
    assert done.says("web: fail2ban.service is inactive")
    assert done.says("web: site.yml would change")
    assert done.says("Configure the site and the default server")


def test_status_of_the_host_names_a_failed_unit(host, status):
    host.check_output("systemd-run --unit=broken false")
    wait_for(lambda: "broken.service is failed (exit-code)" in status()["problems"])
    host.check_output("systemctl reset-failed broken")
    assert "broken.service is failed (exit-code)" not in status()["problems"]


def test_journal_is_persistent_and_bounded(host):
    assert host.file("/var/log/journal").is_directory
    shown = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert "Storage=persistent" in shown
    assert "SystemMaxUse=500M" in shown
