"""Clients of a test host: HTTP, SQL, the journal and processes."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import requests
from requests.adapters import HTTPAdapter


class Named(HTTPAdapter):
    """Connects to any address, and expects a certificate for `name` there."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(
            *arguments, server_hostname=self.name, assert_hostname=self.name, **options
        )


class Site:
    """The site on one host, requested at the host's address with one of the site's names."""

    def __init__(self, address: str, name: str, prefix: str = "", ca: str = "") -> None:
        """Use http://`address`/`prefix` as `name`; https if the file `ca` is given."""
        self.url = f"{'https' if ca else 'http'}://{address}{prefix}"
        self.name = name
        self.ca = ca

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET `path` on a new connection; redirects are returned, not followed."""
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.request("POST", path, **options)

    def write(self, page: requests.Response, **form: str) -> requests.Response:
        """Send the guest book's form on a `page` of the site, with the session of that page."""
        token = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
        form = {"csrf_token": token[1] if token else "", "author": "Ada"} | form
        headers = {"Referer": f"{self.url.partition(':')[0]}://{self.name}/"}
        return self.post("/notes", data=form, cookies=page.cookies, headers=headers)

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """Send one request; `timeout` is 15 s by default."""
        headers = {"Host": self.name} | options.pop("headers", {})
        options = {"timeout": 15, "allow_redirects": False} | options
        with requests.Session() as session:
            if self.ca:
                options = {
                    "verify": self.ca
                } | options  # the environment would override the session's value
                session.mount("https://", Named(re.sub(r":\d+$", "", self.name).strip("[]")))
            return session.request(method, self.url + path, headers=headers, **options)

    @contextmanager
    def under_load(
        self, path: str, threads: int = 4, most: int = 5000, pause: float = 0
    ) -> Iterator[Counter[str]]:
        """Request `path` continuously; yield the counts by status, or by the error's name.

        Each thread pauses `pause` seconds after an answer, and stops after its share of `most`
        requests.
        """
        answers: Counter[str] = Counter()
        stop = threading.Event()

        def ask() -> None:
            for _ in range(most // threads):
                if stop.is_set():
                    return
                try:
                    answers[str(self.get(path).status_code)] += 1
                except requests.RequestException as error:
                    answers[type(error).__name__] += 1
                stop.wait(pause)

        running = [threading.Thread(target=ask) for _ in range(threads)]
        for thread in running:
            thread.start()
        try:
            yield answers
        finally:
            stop.set()
            for thread in running:
                thread.join()


class Database:
    """SQL as root through the host's own socket."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def rows(self, statement: str) -> list[list[str]]:
        """Return the rows of `statement`, each a list of strings."""
        output = self.host.check_output("mysql --batch --skip-column-names --execute %s", statement)
        return [line.split("\t") for line in output.splitlines()]

    def value(self, statement: str) -> str:
        return self.rows(statement)[0][0]

    def variable(self, name: str) -> str:
        return self.value(f"SELECT @@GLOBAL.{name}")

    def connections(self, user: str) -> list[str]:
        """Return the ids of the current connections of `user` and its background processes."""
        everyone = "SELECT id FROM information_schema.processlist"
        return [row[0] for row in self.rows(f"{everyone} WHERE user IN ('{user}', '{user}_jobs')")]


def tls(ca: str) -> ssl.SSLContext:
    """Return an SSL context that trusts only `ca`."""
    return ssl.create_default_context(cafile=ca)


def journal(
    host: Any, *units: str, since: str = "", grep: Callable[[str], bool] = bool
) -> list[str]:
    """Return the journal messages of `units` since `since` (in journalctl's format)."""
    selection = " ".join(f"--unit '{unit}'" for unit in units)
    window = f"--since '{since}'" if since else "--boot"
    found = host.run(f"journalctl --output cat --no-pager {selection} {window}")
    assert found.rc == 0, found
    output = found.stdout_bytes.decode(errors="replace")  # nginx logs paths unchanged
    return [line for line in output.splitlines() if grep(line)]


def json_lines(lines: list[str]) -> list[dict[str, Any]]:
    """Return those of `lines` that are JSON objects."""
    found = (re.search(r"\{.*\}$", line) for line in lines)
    parsed = []
    for match in found:
        try:
            parsed.append(json.loads(match.group(0) if match else ""))
        except ValueError:
            continue
    return parsed


def main_pid(host: Any, unit: str) -> int:
    """Return the main process of a unit, or 0."""
    return int(host.check_output("systemctl show --value --property MainPID %s", unit))


def live_web(host: Any, app: str) -> str:
    """Return the unit of the active instance; deploys alternate between two."""
    slot = host.check_output("basename $(readlink %s) .sock", f"/srv/{app}/web.sock")
    return f"{app}-web@{slot}.service"


def children(host: Any, parent: int) -> list[int]:
    return [int(pid) for pid in host.check_output(f"cat /proc/{parent}/task/*/children").split()]


def restarted(host: Any, unit: str, old: int) -> bool:
    """Return whether `unit` runs with another main process than `old`."""
    return main_pid(host, unit) not in (0, old) and host.service(unit).is_running
