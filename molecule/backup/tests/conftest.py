"""Hosts of the scenario, the commands of docs/backups.md, and a writer of acknowledged rows."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
import testinfra

from helpers.operator import ENVIRONMENT
from helpers.repository import ROOT

PAGE = (ROOT / "docs/backups.md").read_text()
INVENTORY = os.environ["MOLECULE_INVENTORY_FILE"]
CREATE = "CREATE TABLE IF NOT EXISTS writes (id INT PRIMARY KEY, body VARCHAR(20))"
# A view on a view of an account that the other host does not have.
VIEWS = """CREATE USER IF NOT EXISTS leaver@localhost; GRANT ALL ON my_shop.* TO leaver@localhost;
CREATE OR REPLACE DEFINER=leaver@localhost VIEW numbers AS SELECT id FROM writes;
CREATE OR REPLACE VIEW last_number AS SELECT MAX(id) AS id FROM numbers"""


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
    options = {"ansible_inventory": INVENTORY, "sudo": True}
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
    hosts["site"].check_output(f"mariadb my_shop -e '{CREATE}; {VIEWS}'")
    return Writer(hosts["site"])


class Manual:
    """The commands of docs/backups.md, run as printed but for names, addresses and times."""

    def __init__(self, hosts) -> None:
        self.hosts = hosts

    def commands(self, section: str) -> list[str]:
        """Return the commands of a section."""
        (text,) = re.findall(rf"^### {section}\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
        return [line.strip() for line in re.findall(r"^ {4,}(\S.*)$", text, re.MULTILINE)]

    def run(self, command: str, host: str = "site", moment: str = "") -> str:
        """Run a command of the page: playbooks here, others on the host; return its output."""
        command = command.replace("2026-11-20 14:02:59", moment)
        command = command.replace("orders", "writes").replace("shop", "my_shop")
        if not command.startswith("ansible-playbook "):
            return self.hosts[host].check_output(command)
        converge = "molecule/backup/converge.yml"  # only the roles of this scenario
        command = command.replace(" site.yml", f" {converge}")
        arguments = shlex.split(command.replace("inventory/production", INVENTORY))
        done = subprocess.run(
            [*arguments, "--limit", f"{host},store"],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def manual(hosts):
    """Return the commands of docs/backups.md."""
    return Manual(hosts)
