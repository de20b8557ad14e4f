"""Clients notice no deploy, rollback, restart or reload."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.clients import children, live_web, main_pid
from helpers.wait import wait_for

THREADS = 4  # requests that a worker handles at a time


def releases_in(load):
    """Return the releases that answered, in the order of their first answer."""
    return list(dict.fromkeys(answer.release for answer in load.answers if answer.release))


def test_two_deploys_and_a_rollback(under_load, operator, version, state, site, environment):
    """The first deploy lets slow requests finish; repeating the second changes nothing."""
    active, sources = [state.release], [version(), version()]
    key = {"X-Api-Key": environment["DIAGNOSTICS_KEY"]}
    whole = under_load("two deploys, a rollback", share=0.5)
    with whole as load, ThreadPoolExecutor() as pool:
        deploy = pool.submit(operator.deploy, sources[0])
        wait_for(lambda: len(state.instances) == 2, 120)
        stream = pool.submit(site.get, "/stream?count=20&pause=1", timeout=60)
        slow = pool.submit(site.get, "/slow?seconds=15", timeout=60, headers=key)
        wait_for(lambda: state.release != active[0], 60)
        were_waiting = not (stream.done() or slow.done())
        assert deploy.result().code == 0, deploy.result().output
        active.append(state.release)
        wait_for(lambda: state.only_active_runs, 60)
        done = operator.deploy(sources[1])
        assert done.code == 0, done.output
        active.append(state.release)
        before = wait_for(lambda: state.only_active_runs and state(), 60)
        again = operator.deploy(sources[1])
        assert state() == before
        done = operator.play("rollback")
        assert done.code == 0, done.output
    assert len(set(active)) == 3
    assert state.release == active[1]
    assert releases_in(load) == active
    # The last answers come from the target of the rollback.
    assert [answer.release for answer in load.answers if answer.release][-1] == active[1]
    assert were_waiting, "the slow requests had finished before the switch"
    assert slow.result().json() == {"slept": 15.0}
    assert stream.result().text.count("data:") == 20
    assert (again.code, again.changed) == (0, 0)
    assert again.says(f"No change: {active[2]} is already active")
    wait_for(lambda: state.only_active_runs, 60)


@pytest.mark.parametrize(("signal", "may_fail"), [("TERM", 0), ("KILL", THREADS)])
def test_a_stopped_worker_is_replaced(signal, may_fail, under_load, host):
    """A killed worker loses only the requests that it was handling."""
    arbiter = main_pid(host, live_web(host, "sample"))
    before = children(host, arbiter)
    with under_load(f"worker, {signal}", may_fail) as load:
        host.check_output("kill -%s %s", signal, str(before[0]))
        wait_for(lambda: len(set(children(host, arbiter)) - {before[0]}) == len(before))
        replaced = load.now()
        wait_for(lambda: load.now() > replaced + 2)


def test_nginx_reloads_its_configuration(under_load, operator, host, site):
    def workers():
        return set(host.check_output("pgrep --uid www-data nginx").split())

    before = workers()
    with under_load("nginx reloads"):
        done = operator.play("molecule/release/edge.yml", nginx_static_max_age=600)
        assert done.code == 0, done.output
        wait_for(lambda: not before & workers(), 60)
    assert "max-age=600" in site.get("/static/style.css?v=1").headers["Cache-Control"]


def test_a_restart_behind_the_socket_refuses_no_request(under_load, operator, version, state):
    before = state.release
    with under_load("strategy restart", longest=20) as load:
        done = operator.deploy(version(), release_strategy="restart")
    assert done.code == 0, done.output
    assert releases_in(load) == [before, state.release]
    assert state.only_active_runs


# The operator's command on the host, which works without a controller.


@pytest.fixture
def command(host):
    """Return a function that runs `flaskstack sample …` on the host."""
    return lambda words: host.run(f"flaskstack sample {words}")


def test_commands_on_the_host(command, under_load, operator, version, state, host):
    """A deploy blocks a rollback. Afterwards, a restart and rollbacks lose no request."""

    def status():
        return json.loads(host.check_output("flaskstack sample status --json"))

    previous = state.release
    with ThreadPoolExecutor() as pool:
        deploy = pool.submit(operator.deploy, version())
        wait_for(lambda: "has been deploying a new release" in status()["deploy"], 60)
        rejected = command("rollback")
        assert deploy.result().code == 0, deploy.result().output
    assert (rejected.rc, "Another deploy holds the lock" in rejected.stderr) == (1, True)
    active, web = state.release, live_web(host, "sample")
    with under_load("commands on the host", share=0.5) as load:
        for words, release in (
            ("restart", active),
            ("rollback", previous),
            (f"rollback {active}", active),
        ):
            done = command(words)
            assert done.rc == 0, done.stderr
            assert state.release == release
            assert live_web(host, "sample") != web
            web = live_web(host, "sample")
    assert releases_in(load) == [active, previous]
    assert state.worker == active
    assert state.last_deploy["action"] == "rollback"
    assert status()["release"] == active
    assert active in command("releases").stdout


def test_status_fails_when_a_process_is_down(command, host):
    assert command("status").rc == 0
    host.check_output("systemctl stop sample-worker@1")
    try:
        status = command("status")
        assert (status.rc, "sample-worker@1" in status.stdout) == (1, True)
    finally:
        host.check_output("systemctl start sample-worker@1")


def test_run_and_logs(command):
    assert command("run sh -c 'exit 7'").rc == 7
    assert command("run printenv APP_ENV").stdout == "production\n"
    assert "unicorn" in command("logs --grep=gunicorn --lines=1 --no-pager").stdout


def test_maintenance_returns_503_except_for_the_health_path(command, site):
    assert command("maintenance on").rc == 0
    try:
        closed = site.get("/")
        assert closed.status_code == 503
        assert int(closed.headers["Retry-After"]) > 0
        assert site.get("/readyz").status_code == 200
    finally:
        assert command("maintenance off").rc == 0
    assert site.get("/").status_code == 200
