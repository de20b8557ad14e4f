"""The app as its visitors meet it, and as systemd does."""

import os
import threading
from pathlib import Path

import pytest
import requests

from helpers.clients import live_web


@pytest.fixture
def get(address):
    """Give `get(path, headers, **query)`: what the app answers to a visitor."""

    def get(path="/", headers=None, **query):
        answer = requests.get(f"http://{address}{path}", params=query, headers=headers, timeout=20)
        answer.raise_for_status()
        return answer.json()

    return get


@pytest.fixture
def during(get):
    """Give `during(action)`: do it while visitors come; return their answers and what failed."""

    def during(action):
        answers, failures, done = [], [], threading.Event()

        def visit():
            while not done.is_set():
                try:
                    answers.append(get())
                except requests.RequestException as error:
                    failures.append(error)

        visitors = [threading.Thread(target=visit) for _ in range(4)]
        for visitor in visitors:
            visitor.start()
        try:
            action()
        finally:
            done.set()
            for visitor in visitors:
                visitor.join()
        return answers, failures

    return during


@pytest.fixture
def secret_key():
    """The secret that the play has made."""
    return (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "key").read_text().strip()


@pytest.fixture
def unit(host):
    """Give `unit(name, property)`: what systemd says of a unit."""
    return lambda name, key: host.check_output("systemctl show --value --property %s %s", key, name)


@pytest.fixture
def processes(host, unit):
    """Give `processes()`: the ids of Gunicorn and its workers, in this order."""

    def processes():
        folder = unit(live_web(host, "probe"), "ControlGroup")
        return host.check_output("cat /sys/fs/cgroup%s/cgroup.procs", folder).split()

    return processes
