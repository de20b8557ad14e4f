"""One deploy at a time: who holds the lock, and when it expires."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from flaskstack import deploy_lock
from flaskstack.controller import holder
from flaskstack.deploy_lock import Lock, this_process
from flaskstack.errors import ValidationError
from helpers.wait import wait_for


def request(**changed):
    """Return the parameters with which a deploy requests the lock."""
    usual = {"by": "ada@desk", "controller": "desk", "pid": 100, "running": [100], "release": "one"}
    return usual | changed


@pytest.fixture
def lock(tmp_path):
    """Return the lock of a directory, held by a deploy."""
    lock = Lock(tmp_path)
    assert lock.acquire(request()) == {}
    return lock


@pytest.fixture
def later(monkeypatch):
    """Return a function that advances the clock."""
    now = time.time()
    return lambda seconds: monkeypatch.setattr(deploy_lock.time, "time", lambda: now + seconds)


def rejected(lock, **changed):
    """Request the lock and return the error."""
    before = lock.path.read_text()
    with pytest.raises(ValidationError) as raised:
        lock.acquire(request(**changed), 60)
    assert lock.path.read_text() == before
    return str(raised.value)


def test_the_error_names_the_holder_the_release_and_the_time(lock, later):
    holder = json.loads(lock.path.read_text())
    assert lock.path.stat().st_mode & 0o777 == 0o644
    assert holder.pop("time") == pytest.approx(time.time(), abs=60)
    assert holder == {"by": "ada@desk", "controller": "desk", "pid": 100, "release": "one"}
    later(30)
    error = rejected(lock, controller="other", release="two")
    for words in (
        "ada@desk has been deploying one since 20",
        " UTC, just now (process 100 there)",
        "release_lock=break",
        "--break-lock",
        "after 60 s",
    ):
        assert words in error


def test_the_same_deploy_may_acquire_the_lock_again(lock):
    assert lock.acquire(request(release="two")) == {}
    assert lock.holder()["release"] == "two"


def test_a_deploy_of_the_same_controller_expires_when_it_ends(lock, later):
    later(10_000)
    rejected(lock, pid=101, running=[100, 101])
    assert lock.acquire(request(pid=101, running=[101]))["pid"] == 100
    assert lock.holder()["pid"] == 101


def test_a_deploy_of_another_controller_expires(lock, later):
    later(60)
    rejected(lock, controller="other", running=[])
    later(62)
    assert lock.acquire(request(controller="other", running=[]), 60)["controller"] == "desk"


def test_the_lock_can_be_broken(lock):
    assert lock.acquire(request(controller="other"), force=True)["by"] == "ada@desk"
    assert lock.holder()["controller"] == "other"


def test_a_command_on_this_host_holds_the_lock_while_it_runs(tmp_path, later):
    lock, here = Lock(tmp_path), this_process("ada@host", "a restart")
    assert here["pid"] == os.getpid()
    lock.acquire(here)
    later(10_000)
    rejected(lock, controller="desk")
    lock.acquire(here | {"controller": "host 1234"}, force=True)  # before a reboot
    assert lock.acquire(request(controller="desk"), 60)["by"] == "ada@host"
    with subprocess.Popen(["true"]) as process:
        process.wait()
    lock.acquire(here | {"pid": process.pid}, force=True)
    assert lock.acquire(request(controller="desk"), 60)["by"] == "ada@host"


def test_only_the_holder_can_release_the_lock(lock, tmp_path):
    lock.release(request(pid=101))
    assert lock.path.exists()
    lock.release(request())
    assert not lock.path.exists()
    Lock(tmp_path / "missing").release(request())


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(ValidationError, match=r"Run site\.yml"):
        Lock(tmp_path / "missing").acquire(request())


def test_one_of_many_simultaneous_requests_gets_the_lock(tmp_path, monkeypatch):
    pids, write, got = list(range(1, 9)), deploy_lock.write, []

    def slow_write(path, text):
        time.sleep(0.02)  # keep all requests waiting until each has seen no lock
        write(path, text)

    def acquire(pid):
        with suppress(ValidationError):
            Lock(tmp_path).acquire(request(pid=pid, running=pids))
            got.append(pid)

    monkeypatch.setattr(deploy_lock, "write", slow_write)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(acquire, pids))
    assert got == [Lock(tmp_path).holder()["pid"]]


def test_a_task_finds_its_playbook_and_other_running_playbooks():
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    task = context.Process(target=lambda: answers.put(holder.holder()))
    task.start()
    task.join()
    answer = answers.get()
    assert answer["pid"] == os.getpid()
    assert "@" in answer["by"]
    waits = [sys.executable, "-c", "input()", "ansible-playbook"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE) as playbook:
        wait_for(lambda: playbook.pid in holder.running_playbooks())
        playbook.communicate()
    assert playbook.pid not in holder.running_playbooks()
