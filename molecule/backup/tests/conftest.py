"""Hosts of the scenario, and a writer that records what the database acknowledged."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager

import pytest
import testinfra

CREATE = "CREATE TABLE IF NOT EXISTS writes (id INT PRIMARY KEY, body VARCHAR(20))"


class Writer:
    """Inserts rows from several sessions, with the times of each request and acknowledgement."""

    def __init__(self, host) -> None:
        self.host, self.stopped = host, threading.Event()
        self.acknowledged: list[tuple[int, float, float]] = []

    def write(self, first: int, step: int) -> None:
        number = first
        while not self.stopped.is_set():
            start = time.time()
            insert = f"INSERT INTO writes (id, body) VALUES ({number}, 'w')"
            if self.host.run("mariadb my_shop -e %s", insert).rc == 0:
                self.acknowledged.append((number, start, time.time()))
            number += step

    @contextmanager
    def running(self, threads: int = 4):
        workers = [threading.Thread(target=self.write, args=(n, threads)) for n in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield self
        finally:
            self.stopped.set()
            for worker in workers:
                worker.join()

    def before(self, moment: float) -> set[int]:
        """Return the rows that were acknowledged before a moment."""
        return {number for number, _, end in self.acknowledged if end < moment}

    def after(self, moment: float) -> set[int]:
        """Return the rows that were requested after a moment."""
        return {number for number, start, _ in self.acknowledged if start >= moment}


@pytest.fixture(scope="session")
def hosts():
    """Return the hosts by name."""
    options = {"ansible_inventory": os.environ["MOLECULE_INVENTORY_FILE"], "sudo": True}
    names = ("site", "bare", "store")
    return {name: testinfra.get_host(f"ansible://{name}", **options) for name in names}


@pytest.fixture(scope="session")
def rows(hosts):
    """Return a function that returns the rows of a database on a host."""

    def rows(host="site", database="my_shop"):
        query = f"SELECT id FROM {database}.writes"
        return {int(row) for row in hosts[host].check_output(f"mariadb -N -e '{query}'").split()}

    return rows


@pytest.fixture
def writer(hosts):
    """Return a writer on the site."""
    hosts["site"].check_output(f"mariadb my_shop -e '{CREATE}'")
    return Writer(hosts["site"])
