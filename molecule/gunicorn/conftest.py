"""Fixtures for requests to the app and for its units."""

import os
import threading
from pathlib import Path

import pytest
import requests

from helpers.clients import live_web


@pytest.fixture
def responses(address):
    """Return `responses(port)`, which returns a function that gets JSON from that port.

    It raises requests.RequestException.
    """

    def responses(port):
        def get(path="/", headers=None, **query):
            url = f"http://{address}:{port}{path}"
            answer = requests.get(url, params=query, headers=headers, timeout=20)
            answer.raise_for_status()
            return answer.json()

        return get

    return responses


@pytest.fixture
def get(responses):
    """Return `get(path, headers, **query)`, which returns the JSON of the app's response."""
    return responses(80)


@pytest.fixture
def during(get):
    """Return `during(action)`, which runs it under load and returns (responses, errors)."""

    def during(action):
        answers, failures, stop = [], [], threading.Event()

        def visit():
            while not stop.is_set():
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
            stop.set()
            for visitor in visitors:
                visitor.join()
        return answers, failures

    return during


@pytest.fixture
def secret_key():
    """Return the generated session key."""
    return (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "key").read_text().strip()


@pytest.fixture
def unit(host):
    """Return `unit(name, key)`, which returns a property of a systemd unit."""
    return lambda name, key: host.check_output("systemctl show --value --property %s %s", key, name)


@pytest.fixture
def processes(host, unit):
    """Return `processes()`, which returns the process ids of Gunicorn and then its workers."""

    def processes():
        folder = unit(live_web(host, "probe"), "ControlGroup")
        return host.check_output("cat /sys/fs/cgroup%s/cgroup.procs", folder).split()

    return processes
