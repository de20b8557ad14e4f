"""The status screen of the inventory, and of a host."""

import json

from helpers.wait import wait_for

testinfra_hosts = ["ansible://app-1"]


def test_screen_of_a_changed_and_of_an_unchanged_host(host, operator, tmp_path):
    file = tmp_path / "status.json"
    host.check_output(
        "systemctl stop fail2ban && echo '# edited' >>/etc/nginx/sites-enabled/default"
    )
    try:
        done = operator.play("status", status_file=str(file))
    finally:
        host.check_output("systemctl start fail2ban")
        host.check_output("sed -i '/# edited/d' /etc/nginx/sites-enabled/default")
    assert done.code == 0, done.output
    report = json.loads(file.read_text())
    assert done.says(f"3 hosts, {len(report['problems'])} problems"), done.output
    assert "app-1: fail2ban.service is inactive" in report["problems"]
    web, data = report["hosts"]["app-1"], report["hosts"]["data"]
    assert "nginx : Configure the site and the default server" in web["drift"]
    assert done.says(f"app-1: site.yml would change {len(web['drift'])} task")
    assert web["app"]["healthy"]
    assert data["app"] == {}
    assert data["drift"] == []
    assert "mariadb-server" in data["host"]["versions"]
    assert data["host"]["units"] == {}


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
