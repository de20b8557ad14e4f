"""Gunicorn replaces workers with the configuration of role gunicorn."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import threading
import time
from functools import partial

import pytest

from helpers.gunicorn_server import Served
from helpers.wait import wait_for


@pytest.fixture
def serve(tmp_path):
    """Return a function that starts Gunicorn and waits until it answers."""
    started = []

    def serve(**variables):
        served = Served(tmp_path, **variables)
        started.append(served)
        wait_for(served.answers, 30)
        return served

    yield serve
    for served in started:
        served.process.terminate()
        served.process.wait(60)


@pytest.mark.parametrize("worker_class", ["gthread", "sync"])
def test_workers_are_replaced_one_at_a_time(serve, worker_class):
    """Gunicorn's own max_requests may stop all workers at once, so requests would fail."""
    hook = {"post_worker_init": "shop.imported"}
    limit = {"gunicorn_max_requests": 40, "gunicorn_settings": hook}
    served = serve(gunicorn_worker_class=worker_class, **limit)
    wait_for(lambda: len([*served.folder.glob("imported-*")]) == 2, 20)
    stop, failed = threading.Event(), []

    def visit():
        while not stop.is_set():
            try:
                served.ask()
            except (AssertionError, OSError, http.client.HTTPException) as error:
                failed.append(error)

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    try:
        wait_for(lambda: len(served.replaced()) == 4, 60)
    finally:
        stop.set()
        for visitor in visitors:
            visitor.join()
    assert failed == []
    events = served.events("Booting", "Replacing", "exiting")[2:11]
    assert [name for name, _ in events] == ["Replacing", "Booting", "exiting"] * 3
    ended = [pid for name, pid in events if name == "exiting"]
    assert [pid for name, pid in events if name == "Replacing"] == ended


def test_large_worker_is_replaced_after_its_response(serve):
    hook = {"child_exit": "shop.after"}  # the app's own hook must also run
    served = serve(gunicorn_workers=1, gunicorn_worker_memory_limit=90, gunicorn_settings=hook)
    first = served.ask()
    for _ in range(10):
        assert served.ask("/10") == first
    # The size is checked at every tenth request.
    wait_for(lambda: served.ask() and served.replaced() == [first], 20)
    wait_for(lambda: (served.folder / "after").exists(), 20)
    assert (served.folder / "after").read_text() == str(first)
    assert served.workers() == {served.ask()} != {first}
    # The new worker is below the limit.
    for _ in range(10):
        served.ask()
    assert served.replaced() == [first]


def test_worker_killed_during_its_replacement_does_not_block_others(serve):
    served = serve(gunicorn_workers=1, gunicorn_max_requests=5)
    first = served.ask()
    while not served.replaced():
        served.ask()
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: first not in served.workers() and served.answers(), 20)
    while len(served.replaced()) < 2:
        served.ask()
    second = served.replaced()[1]
    wait_for(lambda: second not in served.workers(), 20)
    assert len(served.workers()) == 1


def test_new_workers_continue_the_metrics_of_killed_ones(serve, tmp_path, monkeypatch):
    folder = tmp_path / "metrics"  # with a file for each worker, as long as its requests
    folder.mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(folder))
    served = serve()

    def counts() -> dict[str, int]:
        return {file.name: file.stat().st_size for file in folder.iterdir()}

    def is_continued(killed: int, workers: int) -> bool:
        return f"counter_{killed}.db" not in counts() and len(counts()) == workers

    for _ in range(3):
        killed = served.ask()
        before = counts()
        os.kill(killed, signal.SIGKILL)
        wait_for(partial(is_continued, killed, len(before)), 30)
        assert sum(counts().values()) == sum(before.values())


@pytest.fixture
def notified(tmp_path, monkeypatch):
    """Return a function that waits up to `seconds` for a notification of systemd."""
    path = tmp_path / "notify.sock"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))

        def notified(seconds):
            receiver.settimeout(seconds)
            try:
                return receiver.recv(1000).decode()
            except TimeoutError:
                return ""

        yield notified


def test_master_notifies_the_watchdog_until_it_hangs(serve, notified):
    hook = {"when_ready": "shop.ready"}  # the app's own hook must also run
    served = serve(gunicorn_settings=hook)
    assert notified(5).startswith("READY=1")
    assert [notified(5) for _ in range(3)] == ["WATCHDOG=1"] * 3
    assert (served.folder / "ready").exists()
    served.process.send_signal(signal.SIGSTOP)
    try:
        wait_for(lambda: not notified(3), 10)
        assert served.ask(), "the workers did not continue"
    finally:
        served.process.send_signal(signal.SIGCONT)
    assert notified(5) == "WATCHDOG=1"


@pytest.fixture
def occupy():
    """Return a function that sends a request in the background and ignores its answer."""
    threads = []

    def occupy(served, path):
        def visit():
            with contextlib.suppress(OSError, http.client.HTTPException):
                served.ask(path)

        threads.append(threading.Thread(target=visit))
        threads[-1].start()

    yield occupy
    for thread in threads:
        thread.join()


def test_worker_whose_threads_are_all_stuck_is_aborted(serve, occupy):
    """Gunicorn itself only notices a main loop that hangs."""
    served = serve(gunicorn_workers=1, gunicorn_threads=2, gunicorn_timeout=2)
    stuck = served.ask()
    occupy(served, "/hang")
    time.sleep(5)
    assert served.ask() == stuck, "one thread still works"
    occupy(served, "/hang")
    wait_for(lambda: stuck not in served.workers(), 15)
    assert served.ask() != stuck
    assert "in app\n" in (served.folder / "log").read_text(), "no stack of the threads"


def test_streams_do_not_count_as_stuck(serve, occupy):
    paths = {"app_streaming_paths": ["/stream"]}
    served = serve(gunicorn_workers=1, gunicorn_threads=2, gunicorn_timeout=2, **paths)
    streaming = served.ask()
    occupy(served, "/stream")
    occupy(served, "/stream")
    time.sleep(6)
    assert served.workers() == {streaming}
    os.kill(streaming, signal.SIGKILL)
