"""Gunicorn under systemd: requests, restarts and failures."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.wait import wait_for

WEB = "probe-web@a.service"


def test_environment_reaches_the_app(get, secret_key):
    environment = get("/environment")
    assert environment["GREETING"] == 'it\'s "quoted", $HOME and `more`'
    assert environment["SECRET_KEY"] == secret_key
    assert environment["APP_RELEASE"] == "test"
    assert environment["APP_ENV"] == "production"
    assert environment["TRUSTED_PROXY_HOPS"] == "1"


def test_app_has_no_privileges(host, get):
    status = host.file(f"/proc/{get()['pid']}/status").content_string
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(host.user("probe").uid)] * 4
    assert fields["NoNewPrivs"] == "1"
    assert int(fields["CapBnd"], 16) == 0
    assert fields["Seccomp"] == "2"
    assert host.user("probe").shell == "/usr/sbin/nologin"


def test_app_writes_to_its_state_folder(host, get):
    assert "pid" in get("/write", file="/var/lib/probe/made-by-app")
    file = host.file("/var/lib/probe/made-by-app")
    assert (file.user, file.group, file.mode) == ("probe", "probe", 0o640)


def test_app_writes_to_shared_folders(host, get):
    host.check_output("install -d -o probe -g probe /srv/probe/shared/uploads")
    assert "pid" in get("/write", file="/srv/probe/shared/uploads/made-by-app")


def test_concurrent_requests_are_workers_times_threads(get, processes):
    assert len(processes()) == 1 + 2

    def request(_):
        start = time.monotonic()
        get("/sleep", seconds=3)
        return time.monotonic() - start

    with ThreadPoolExecutor(5) as visitors:
        durations = sorted(visitors.map(request, range(5)))
    assert durations[3] < 5
    assert durations[4] > 5  # the fifth request waited for a free thread


def test_killed_worker_is_replaced_without_failed_requests(host, get, processes):
    killed = str(get()["pid"])
    host.check_output("kill -KILL %s", killed)
    for _ in range(100):
        assert str(get()["pid"]) != killed
    wait_for(lambda: len(processes()) == 3 and killed not in processes())


def test_killed_gunicorn_is_restarted(host, get, unit):
    killed = unit(WEB, "MainPID")
    host.check_output("kill -KILL %s", killed)
    wait_for(get)
    wait_for(lambda: unit(WEB, "MainPID") not in ("0", killed))


def test_hanging_worker_is_killed_and_logs_a_traceback(host, get, processes):
    since = host.check_output("date +@%s")

    def log():
        return host.check_output("journalctl -u %s --since %s", WEB, since)

    with ThreadPoolExecutor(1) as visitor:
        hanging = visitor.submit(get, "/hang", seconds=60)
        wait_for(lambda: "WORKER TIMEOUT" in log(), 20)
        assert get()
        assert hanging.exception()
    assert 'probe.py", line' in log()
    assert "in answer" in log()
    wait_for(lambda: len(processes()) == 3)


def test_restart_fails_no_request(host, during, processes):
    before = processes()
    answers, failures = during(lambda: host.check_output("systemctl restart probe.target"))
    assert failures == []
    assert answers
    wait_for(lambda: len(processes()) == 3 and not set(before) & set(processes()))


def test_stop_waits_for_a_running_request(host, get, unit):
    before = unit(WEB, "MainPID")
    with ThreadPoolExecutor(1) as visitor:
        running = visitor.submit(get, "/sleep", seconds=3)
        wait_for(lambda: host.check_output("ss -Hx state connected src /run/probe/a.sock"))
        host.check_output("systemctl restart %s", WEB)
        assert "pid" in running.result()
    assert unit(WEB, "MainPID") != before


def test_app_gets_only_the_trusted_headers(get):
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    request = get("/request", forwarded)
    assert request["wsgi.url_scheme"] == "https"
    assert request["HTTP_X_FORWARDED_FOR"] == "192.0.2.7"
    forged = get(
        "/request", {"X-Forwarded-Ssl": "on", "SCRIPT_NAME": "/req", "X_Forwarded_For": "192.0.2.8"}
    )
    assert forged["wsgi.url_scheme"] == "http"
    assert forged["SCRIPT_NAME"] == ""
    assert "HTTP_X_FORWARDED_FOR" not in forged


@pytest.mark.parametrize("instance", ["probe-clock@1.service", "probe-clock@2.service"])
def test_killed_background_process_is_restarted(host, unit, instance):
    assert unit(instance, "ActiveState") == "active"
    assert 'ticking 100% "red"' in host.check_output("journalctl -u %s", instance)
    killed = unit(instance, "MainPID")
    host.check_output("kill -KILL %s", killed)
    wait_for(lambda: unit(instance, "MainPID") not in ("0", killed), 15)


def test_units_start_at_boot(unit, host):
    assert host.check_output("systemctl is-enabled probe.target") == "enabled"
    assert "probe-web@a.service" in unit("probe.target", "Wants")


def test_run_executes_a_command_with_environment_and_user_of_the_app(host):
    code = "import os; print(os.getuid(), os.getgroups(), os.getcwd(), os.environ['GREETING'])"
    uid, gid = host.user("probe").uid, host.user("probe").gid
    answer = host.check_output("flaskstack probe run python -c %s", code)
    assert answer == f'{uid} [{gid}] /srv/probe/releases/test it\'s "quoted", $HOME and `more`'


def test_run_passes_standard_input(host):
    assert host.check_output("printf rest | flaskstack probe run --release test cat") == "rest"


@pytest.mark.parametrize("arguments", ["", "--nonsense true", "--release nonesuch true"])
def test_run_rejects_invalid_arguments(host, arguments):
    assert host.run(f"flaskstack probe run {arguments}").rc != 0
