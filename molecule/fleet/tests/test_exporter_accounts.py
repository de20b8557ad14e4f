"""The exporters' accounts read the status of the servers, and no data."""

import json

testinfra_hosts = ["ansible://data"]

AS_EXPORTER = "setpriv --reuid=prometheus --regid=prometheus --clear-groups"


def test_database_account_reads_no_tables(host):
    client = f"{AS_EXPORTER} mariadb --user=prometheus --batch --skip-column-names --execute"
    assert host.check_output(f"{client} 'SHOW GLOBAL STATUS LIKE \"Uptime\"'")
    assert "denied" in host.run(f"{client} 'SELECT * FROM mysql.user'").stderr
    shown = host.check_output(f"{client} 'SHOW DATABASES'")
    assert "sample" not in shown.split()
    other = "mariadb --user=prometheus --execute 'SELECT 1'"
    assert host.run(f"setpriv --reuid=nobody --regid=nogroup --clear-groups {other}").failed


def test_redis_account_reads_no_keys(host):
    passwords = json.loads(host.check_output("cat /etc/flaskstack/monitoring/sample-redis.json"))
    for target, password in passwords.items():
        client = f"REDISCLI_AUTH={password} redis-cli -s {target[target.index('/run') :]}"
        client += " --user flaskstack-metrics"
        assert "redis_version" in host.check_output(f"{client} INFO server")
        for command in ("GET x", "KEYS '*'", "CONFIG GET maxmemory", "ACL LIST", "MONITOR"):
            assert "NOPERM" in host.check_output(f"{client} {command}")
