"""Exporters have little access, and only Prometheus can connect to them."""

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

testinfra_hosts = ["ansible://app-1", "ansible://data"]

PORTS = (9090, 9093, 9100, 9101, 9104, 9113, 9121)


def test_exporters_are_not_reachable_from_outside(address):
    def is_open(port: int) -> bool:
        with suppress(OSError), socket.create_connection((address, port), timeout=2):
            return True
        return False

    with ThreadPoolExecutor(len(PORTS)) as pool:
        assert not any(pool.map(is_open, PORTS))


def test_exporters_listen_on_the_private_address_only(host, address):
    lines = host.check_output("ss --no-header --listening --tcp --numeric --processes")
    found = [line.split()[3] for line in lines.splitlines() if "prometheus" in line]
    assert found
    assert {place.rpartition(":")[0] for place in found} <= {address, "127.0.0.1"}


def test_exporters_run_as_prometheus(host):
    processes = host.check_output("ps -eo user:20,args")
    lines = [line.split() for line in processes.splitlines()]
    own = [line for line in lines if "exporter" in " ".join(line[1:3])]
    assert own
    assert {line[0] for line in own} == {"prometheus"}


def test_packaged_redis_exporter_does_not_run(host):
    state = host.run("systemctl is-enabled prometheus-redis-exporter").stdout.strip()
    assert state in ("disabled", "masked", "not-found", "")


def test_no_password_is_in_a_process_list_or_world_readable(host):
    if not host.file("/etc/redis/sample.admin").exists:
        return
    text = host.check_output("cat /etc/flaskstack/monitoring/sample-redis.json")
    password = text.split('"')[3]
    assert password not in host.check_output("ps -eo args")
    assert host.file("/etc/flaskstack/monitoring/sample-redis.json").mode == 0o640
