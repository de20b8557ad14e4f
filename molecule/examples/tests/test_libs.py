"""The libraries of the table in docs/your-app.md work with the settings of the table."""

from __future__ import annotations

import uuid

import pytest

from helpers.wait import wait_for

BROWSER = ["polling", "websocket"]  # a browser starts with polling
# A socket client that queues jobs and receives the events of their workers.
CLIENT = """
import queue, socket, uuid, requests, socketio
resolve, site = socket.getaddrinfo, "http://libs.example.org"
socket.getaddrinfo = lambda host, *more, **options: resolve("127.0.0.1", *more, **options)
for _ in range(3):
    client, received, token = socketio.Client(), queue.Queue(), uuid.uuid4().hex
    client.on("done", received.put)
    client.connect(site, transports={transports})
    assert client.transport() == "websocket", client.transport()
    assert client.call("echo", "words", timeout=10) == "words"
    requests.post(f"{{site}}/jobs/rq/{{token}}", timeout=10).raise_for_status()
    while received.get(timeout=20) != token: pass
    client.disconnect()
"""


@pytest.fixture
def token():
    """Return a unique word."""
    return uuid.uuid4().hex


@pytest.mark.parametrize("library", ["rq", "celery", "dramatiq", "huey"])
def test_a_worker_runs_the_job(shop_libs, token, library):
    assert shop_libs.site.post(f"/jobs/{library}/{token}").text == "queued"
    wait_for(lambda: shop_libs.site.get(f"/jobs/{token}").text == library, 30)


def test_the_port_of_its_queue_is_closed_to_other_apps(host):
    connect = "import socket; socket.create_connection(('127.0.0.1', 6390))"
    assert host.run("flaskstack shop_libs run python -c %s", connect).succeeded
    assert "No route to host" in host.run("flaskstack shop run python -c %s", connect).stderr


def test_beat_ticks_and_keeps_its_schedule(host, shop_libs):
    begin = int(shop_libs.site.get("/ticks").text)
    wait_for(lambda: int(shop_libs.site.get("/ticks").text) > begin, 20)
    assert host.file("/var/lib/shop_libs/beat").size > 0


def test_every_driver_reads_a_table_that_the_app_created(shop_libs, token):
    counts = shop_libs.site.post(f"/words/{token}").json()
    assert set(counts) == {"flask-sqlalchemy", "pymysql", "mysqlclient", "asyncmy", "peewee"}
    assert len(set(counts.values())) == 1, counts
    assert counts["peewee"] > 0


def test_a_rate_limit_is_enforced(shop_libs, token):
    answers = [shop_libs.site.get("/limited", params={"visitor": token}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_a_page_is_cached_until_the_cache_is_cleared(shop_libs, token):
    page = shop_libs.site.get(f"/cached/{token}").text
    assert shop_libs.site.get(f"/cached/{token}").text == page
    assert shop_libs.site.post("/clear").text == "True"
    assert shop_libs.site.get(f"/cached/{token}").text != page


def test_a_session_is_in_the_cache(shop_libs, token):
    kept = shop_libs.site.post(f"/session/{token}")
    assert token not in kept.headers["Set-Cookie"]
    assert shop_libs.site.get("/session", cookies=kept.cookies).text == token
    assert shop_libs.site.get("/session").text == ""


def test_sockets_with_polling_and_one_worker(host):
    client = host.run("flaskstack shop_libs run python -c %s", CLIENT.format(transports=BROWSER))
    assert client.rc == 0, client.stdout + client.stderr


@pytest.fixture
def two_workers(host, shop_libs):
    """Start a second worker by signal; returns a function that stops it."""
    slot = (
        host.check_output("readlink /srv/shop_libs/web.sock")
        .rsplit("/", 1)[1]
        .removesuffix(".sock")
    )
    kill = f"systemctl kill --kill-whom=main --signal=%s shop_libs-web@{slot}.service"

    def visited():
        return {shop_libs.site.get("/visit").text for _ in range(20)}

    def end():
        if not ended:
            ended.append(host.check_output(kill, "TTOU"))
            wait_for(lambda: metric(shop_libs, "workers") == 1, 60)

    ended = []
    host.check_output(kill, "TTIN")
    wait_for(lambda: len(visited()) == 2, 30)
    yield end
    end()


def metric(shop_libs, name):
    """Return a metric's value."""
    lines = shop_libs.site.get("/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_metrics_include_all_workers(shop_libs, two_workers):
    before, visitors = metric(shop_libs, "visits_total"), []
    wait_for(
        lambda: visitors.append(shop_libs.site.get("/visit").text) or len(set(visitors)) == 2, 30, 0
    )
    assert metric(shop_libs, "visits_total") == before + len(visitors)
    assert metric(shop_libs, "workers") == 2
    two_workers()
    assert metric(shop_libs, "visits_total") == before + len(visitors), "metrics were lost"


@pytest.mark.usefixtures("two_workers")
def test_sockets_without_polling_and_two_workers(host):
    client = host.run(
        "flaskstack shop_libs run python -c %s", CLIENT.format(transports=["websocket"])
    )
    assert client.rc == 0, client.stdout + client.stderr


def test_metrics_are_reset_with_a_new_instance(host, shop_libs):
    shop_libs.site.get("/visit")
    host.check_output("systemctl restart 'shop_libs-web@?.service'")
    assert metric(shop_libs, "visits_total") == 0
