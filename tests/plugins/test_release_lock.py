"""One deploy at a time: who holds the ticket, and when it is nobody's any more."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading

import pytest

from releasing import ROLE, load
from waiting import wait_for

NOW = 1_800_000_000


load("ansible.module_utils.deploy_ticket", ROLE / "module_utils/deploy_ticket.py")
release_lock = load("release_lock_module", ROLE / "library/release_lock.py")
asker = load("release_lock_action", ROLE / "action_plugins/release_lock.py")


def asked(**changed):
    """Return what a deploy asks with."""
    return {
        "by": "ada@desk",
        "controller": "desk",
        "pid": 100,
        "running": [100],
        "release": "one",
        "timeout": 60,
        "force": False,
    } | changed


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deploy.json"


def test_a_ticket_says_who_deploys_what_since_when(path):
    done = release_lock.take(path, asked(), NOW)
    assert done["ticket"] == json.loads(path.read_text())
    assert done["ticket"] == {
        "by": "ada@desk",
        "controller": "desk",
        "pid": 100,
        "release": "one",
        "time": NOW,
        "since": "2027-01-15T08:00:00Z",
    }
    assert (done["replaced"], path.stat().st_mode & 0o777) == ({}, 0o644)


@pytest.mark.parametrize("second", [{"controller": "other"}, {"pid": 101, "running": [100, 101]}])
def test_a_second_deploy_is_refused_and_told_who_since_when_and_what(path, second):
    release_lock.take(path, asked(), NOW)
    before = path.read_text()
    done = release_lock.take(path, asked(release="two", **second), NOW + 59)
    for word in ("ada@desk", "deploys one", "since 2027-01-15 08:00:00 UTC", "release_lock=break"):
        assert word in done["refused"]
    assert path.read_text() == before


def test_a_deploy_of_this_controller_that_died_is_taken_over(path):
    release_lock.take(path, asked(), NOW)
    done = release_lock.take(path, asked(pid=101, running=[101]), NOW + 1)
    assert (done["ticket"]["pid"], done["replaced"]["pid"]) == (101, 100)


def test_one_of_another_controller_expires(path):
    release_lock.take(path, asked(), NOW)
    other = asked(controller="other", running=[])
    assert "refused" in release_lock.take(path, other, NOW + 60)
    assert release_lock.take(path, other, NOW + 61)["replaced"]["controller"] == "desk"


def test_one_that_runs_here_never_expires(path):
    release_lock.take(path, asked(), NOW)
    second = asked(pid=101, running=[100, 101])
    assert "refused" in release_lock.take(path, second, NOW + 10_000)


def test_it_can_be_broken(path):
    release_lock.take(path, asked(), NOW)
    done = release_lock.take(path, asked(controller="other", force=True), NOW + 1)
    assert done["ticket"]["controller"] == "other"


def test_the_same_deploy_may_ask_again(path):
    release_lock.take(path, asked(), NOW)
    done = release_lock.take(path, asked(release="two"), NOW + 1)
    assert (done["ticket"]["release"], done["replaced"]) == ("two", {})


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": 100}'])
def test_half_a_ticket_is_none(path, text):
    path.write_text(text)
    assert release_lock.take(path, asked(pid=7), NOW)["ticket"]["pid"] == 7


def test_only_ones_own_ticket_is_given_back(path):
    release_lock.take(path, asked(), NOW)
    assert not release_lock.give_back(path, asked(pid=101))
    assert path.exists()
    assert release_lock.give_back(path, asked())
    assert not path.exists()
    assert not release_lock.give_back(path, asked())


def test_of_many_that_ask_at_once_one_gets_it(path):
    got, everybody = [], list(range(1, 25))

    def ask(pid):
        with release_lock.alone(path.parent):
            done = release_lock.take(path, asked(pid=pid, running=everybody), NOW)
        if "ticket" in done:
            got.append(pid)

    threads = [threading.Thread(target=ask, args=(pid,)) for pid in everybody]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert json.loads(path.read_text())["pid"] == got[0]


def test_the_controller_knows_its_playbook_from_inside_a_task():
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    task = context.Process(target=lambda: answers.put(asker.playbook_process()))
    task.start()
    task.join()
    assert answers.get() == os.getpid()
    assert "@" in asker.person()


def test_the_controller_sees_which_playbooks_run():
    waits = [sys.executable, "-c", "input()", "ansible-playbook"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE) as playbook:
        wait_for(lambda: playbook.pid in asker.running_playbooks())
        playbook.communicate()
    assert playbook.pid not in asker.running_playbooks()
