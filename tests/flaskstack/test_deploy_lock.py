"""One deploy at a time: who holds the lock, and when it expires."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest

from flaskstack import deploy_lock
from flaskstack.controller import holder
from flaskstack.deploy_lock import Lock, this_process
from flaskstack.errors import ValidationError
from helpers.wait import wait_for


def asks(**changed):
    """Return the parameters with which a deploy requests the lock."""
    usual = {"by": "ada@desk", "controller": "desk", "pid": 100, "running": [100], "release": "one"}
    return usual | changed


@pytest.fixture
def held(tmp_path):
    """Return the lock of a directory, held by a deploy."""
    held = Lock(tmp_path)
    assert held.acquire(asks()) == {}
    return held


@pytest.fixture
def later(monkeypatch):
    """Return a function that advances the clock."""
    now = time.time()
    return lambda seconds: monkeypatch.setattr(deploy_lock.time, "time", lambda: now + seconds)


def refused(held, **changed):
    """Request the lock and return the error."""
    before = held.path.read_text()
    with pytest.raises(ValidationError) as raised:
        held.acquire(asks(**changed), 60)
    assert held.path.read_text() == before
    return str(raised.value)


def test_the_error_names_the_holder_the_release_and_the_time(held, monkeypatch, later):
    known = json.loads(held.path.read_text())
    assert held.path.stat().st_mode & 0o777 == 0o644
    assert known.pop("time") == pytest.approx(time.time(), abs=60)
    assert known == {"by": "ada@desk", "controller": "desk", "pid": 100, "release": "one"}
    later(30)
    said = refused(held, controller="other", release="two")
    for word in (
        "ada@desk deploys one since 20",
        " UTC, just now (process 100 there)",
        "release_lock=break",
        "--break-lock",
        "after 60 s",
    ):
        assert word in said


def test_the_same_deploy_may_acquire_the_lock_again(held):
    assert held.acquire(asks(release="two")) == {}
    assert held.holder()["release"] == "two"


def test_a_running_deploy_of_the_same_controller_never_expires(held, later):
    later(10_000)
    refused(held, pid=101, running=[100, 101])


def test_a_dead_deploy_of_the_same_controller_expires_at_once(held):
    assert held.acquire(asks(pid=101, running=[101]))["pid"] == 100
    assert held.holder()["pid"] == 101


def test_a_deploy_of_another_controller_expires(held, later):
    later(60)
    refused(held, controller="other", running=[])
    later(62)
    assert held.acquire(asks(controller="other", running=[]), 60)["controller"] == "desk"


def test_the_lock_can_be_broken(held):
    assert held.acquire(asks(controller="other"), force=True)["by"] == "ada@desk"
    assert held.holder()["controller"] == "other"


def test_a_command_on_this_host_holds_the_lock_while_it_runs(tmp_path, later):
    held, here = Lock(tmp_path), this_process("ada@host", "a restart")
    assert here["pid"] == os.getpid()
    held.acquire(here)
    later(10_000)
    refused(held, controller="desk")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        held.acquire(here | {"pid": process.pid}, force=True)
        refused(held, controller="desk")
        process.communicate(b"\n")
    assert held.acquire(asks(controller="desk"), 60)["by"] == "ada@host"


def test_a_command_from_before_a_reboot_expires(tmp_path):
    held = Lock(tmp_path)
    held.acquire(this_process("ada@host", "a restart") | {"controller": "host 1234"})
    assert held.acquire(asks(), 60)["controller"] == "host 1234"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 100}'])
def test_an_unreadable_lock_is_ignored(held, text):
    held.path.write_text(text)
    assert held.holder() == {}
    assert held.acquire(asks(pid=7)) == {}


def test_only_the_holder_can_release_the_lock(held, tmp_path):
    held.release(asks(pid=101))
    assert held.path.exists()
    held.release(asks())
    assert not held.path.exists()
    held.release(asks())
    Lock(tmp_path / "gone").release(asks())


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(ValidationError, match=r"Run site\.yml"):
        Lock(tmp_path / "gone").acquire(asks())


def test_one_of_many_simultaneous_requests_gets_the_lock(tmp_path, monkeypatch):
    got, everybody, write = [], list(range(1, 9)), deploy_lock.write

    def slow(path, text):
        threading.Event().wait(0.02)  # keep all requests waiting until each has seen no lock
        write(path, text)

    monkeypatch.setattr(deploy_lock, "write", slow)

    def ask(pid):
        try:
            Lock(tmp_path).acquire(asks(pid=pid, running=everybody))
        except ValidationError:
            return
        got.append(pid)

    threads = [threading.Thread(target=ask, args=(pid,)) for pid in everybody]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [Lock(tmp_path).holder()["pid"]]


def test_a_task_knows_its_playbook_and_other_running_playbooks():
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
