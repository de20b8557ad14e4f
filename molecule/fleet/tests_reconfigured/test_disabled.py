"""Without monitoring no exporter runs, also after a reboot."""

testinfra_hosts = ["ansible://app-1", "ansible://data"]


def test_no_exporter_runs_or_is_enabled(host):
    processes = host.check_output("ps -eo args")
    assert "exporter" not in processes
    assert "/usr/bin/prometheus" not in processes
    enabled = host.check_output("systemctl list-unit-files --state=enabled --no-legend")
    assert "exporter" not in enabled
    assert "prometheus" not in enabled
    assert "sample.status" not in enabled


def test_files_are_removed(host):
    assert host.run("ls /etc/flaskstack/monitoring/*").failed
    assert host.run("ls /var/lib/flaskstack/metrics/*.prom").failed
