"""Worker and scheduler reset the watchdog of systemd, also while Redis or MySQL is down."""

import socket
import threading

import pytest
import redis
import tenacity
from sqlalchemy.exc import OperationalError

from sample_app import queues, scheduler, watchdog, worker


@pytest.fixture(params=["path", "abstract"])
def notified(request, tmp_path, monkeypatch):
    """Return a function that returns the notifications that have arrived."""
    name = str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name if request.param == "path" else f"\0{name}")
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name if request.param == "path" else f"@{name}")

        def notified():
            found = []
            try:
                while True:
                    found.append(receiver.recv(100))
            except BlockingIOError:
                return found

        yield notified


def test_nothing_is_sent_outside_of_systemd(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    watchdog.notify()
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/socket")
    watchdog.notify()


def test_worker_notifies_with_each_heartbeat(app, notified):
    idle = worker.create_worker(queues.instance.client)
    idle.heartbeat()
    idle.heartbeat()
    assert notified() == [b"WATCHDOG=1"] * 2


def test_worker_notifies_while_redis_is_down(notified, monkeypatch):
    def refuse(_client):
        raise redis.ConnectionError

    waits = []
    monkeypatch.setattr(worker, "create_worker", refuse)
    monkeypatch.setattr(tenacity.nap.time, "sleep", lambda _: waits.append(1) or stop_after(waits))

    def stop_after(waits):
        if len(waits) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        worker.work(None)
    assert notified() == [b"WATCHDOG=1"] * 3


def test_scheduler_notifies_while_mysql_is_down(app, notified, monkeypatch):
    stopping, calls = threading.Event(), []

    def tick(interval):
        calls.append(interval)
        if len(calls) == 2:
            stopping.set()
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(scheduler, "tick", tick)
    scheduler.run(1, 300, stopping)
    assert notified() == [b"WATCHDOG=1"] * 2
