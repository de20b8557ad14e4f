"""Clients notice no change."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.clients import children, main_pid
from helpers.wait import wait_for

THREADS = 4  # the most requests that a worker handles at a time


def only_instance(home):
    """Return whether only the active release has an instance, and whether it runs."""
    (slot, release), *others = home.instances.items()
    units = home.host.check_output("systemctl list-units --plain --no-legend 'sample-web@*'")
    running = [line.split()[0] for line in units.splitlines()]
    wanted = [f"sample-web@{slot}.service", f"sample-web@{slot}.socket"]
    return not others and release == home.release and sorted(running) == wanted


def releases_in(load):
    """Return the releases that answered, in the order of their first answer."""
    return list(dict.fromkeys(answer.release for answer in load.answers if answer.release))


@pytest.fixture
def key(host):
    """Return the key for slow requests."""
    environment = host.file("/etc/sample/current/environment").content_string
    return re.search(r"^DIAGNOSTICS_KEY=\W?(\w+)", environment, re.MULTILINE)[1]


def test_three_deploys_and_a_rollback(under_load, operator, version, home, site, key):
    """The second release finishes its slow requests; repeating the third deploy changes nothing."""
    served, sources = [home.release], [version() for _ in range(3)]
    whole = under_load("three deploys, a rollback", share=0.5)
    with whole as load, ThreadPoolExecutor() as pool:
        for source in sources[:2]:
            done = operator.deploy(source)
            assert done.code == 0, done.output
            served.append(home.release)
        wait_for(lambda: only_instance(home), 60)
        deploy = pool.submit(operator.deploy, sources[2])
        wait_for(lambda: len(home.instances) == 2, 120)
        stream = pool.submit(site.get, "/stream?count=20&pause=1", timeout=60)
        slow = pool.submit(site.get, "/slow?seconds=15", timeout=60, headers={"X-Api-Key": key})
        wait_for(lambda: home.release != served[-1], 60)
        held = not (stream.done() or slow.done())
        done = deploy.result()
        assert done.code == 0, done.output
        served.append(home.release)
        before = wait_for(lambda: only_instance(home) and home(), 60)
        again = operator.deploy(sources[2])
        assert home() == before
        done = operator.play("rollback")
        assert done.code == 0, done.output
        served.append(home.release)
    assert len(set(served)) == 4
    assert served[-1] == served[-3]
    # The last answers arrive as the load ends, so each release is among them.
    answered = [answer.release for answer in load.answers if answer.release]
    assert releases_in(load) == served[:-1]
    assert answered[-1] == served[-1]
    assert held, "the switch came after the requests that it should not wait for"
    assert slow.result().json() == {"slept": 15.0}
    assert stream.result().text.count("data:") == 20
    assert (again.code, again.changed) == (0, 0)
    assert again.says(f"No change: {served[-2]} is already active")
    wait_for(lambda: only_instance(home), 60)


@pytest.mark.parametrize(("signal", "held"), [("TERM", 0), ("KILL", THREADS)])
def test_a_stopped_worker_is_replaced(signal, held, under_load, home, host):
    """A killed worker loses only the requests that it was handling."""
    arbiter = main_pid(host, f"sample-web@{next(iter(home.instances))}.service")
    before = children(host, arbiter)
    with under_load(f"worker, {signal}", held) as load:
        host.check_output("kill -%s %s", signal, str(before[0]))
        wait_for(lambda: len(set(children(host, arbiter)) - {before[0]}) == len(before))
        begin = load.now()
        wait_for(lambda: load.now() > begin + 2)


def test_nginx_reloads_its_configuration(under_load, operator, host, site):
    def workers():
        return set(host.check_output("pgrep --uid www-data nginx").split())

    before = workers()
    with under_load("nginx reloads"):
        done = operator.play("molecule/release/edge.yml", nginx_static_max_age=600)
        assert done.code == 0, done.output
        wait_for(lambda: not before & workers(), 60)
    assert "max-age=600" in site.get("/static/style.css?v=1").headers["Cache-Control"]


def test_a_restart_behind_the_socket_is_slow_and_refuses_no_request(
    under_load, operator, version, home
):
    before = home.release
    with under_load("strategy restart", longest=20) as load:
        done = operator.deploy(version(), release_strategy="restart")
    assert done.code == 0, done.output
    assert releases_in(load) == [before, home.release]
    assert only_instance(home)
