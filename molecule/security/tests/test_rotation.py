"""All secrets are rotated under load, and a rotation that is cut is ended by the next one."""

from __future__ import annotations

import json
import re

import pytest

from load import Load
from waiting import wait_for

# A rotation takes minutes, most of them on the controller: one host is enough.
testinfra_hosts = ["ansible://trixie"]
NAMES = ("database", "migration", "cache", "queue", "secret_key")
SERVERS = NAMES[:-1]
TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
# Logs in with what is in a file, since arguments are seen by all and logged.
PROBE = """
import json, os, socket, sys
import pymysql

given = json.load(open("/root/probe.json"))

def mysql(user, password):
    try:
        pymysql.connect(user=user, password=password, unix_socket="/run/mysqld/mysqld.sock").close()
    except pymysql.err.OperationalError as error:
        return error.args[0] != 1045
    return True

def redis(name, password):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(f"/run/redis-sample-{name}/redis.sock")
        link.sendall(f"AUTH sample {password}\\r\\n".encode())
        return link.recv(100).startswith(b"+OK")

users = {"database": "sample", "migration": "sample_migrate"}
ask = lambda name, word: mysql(users[name], word) if name in users else redis(name, word)
print(json.dumps({name: [ask(name, word) for word in words] for name, words in given.items()}))
"""


@pytest.fixture
def lets_in(host, tmp_path):
    """Return a function that logs in with passwords, and says which were let in."""

    def ask(**passwords):
        for name, text in (("probe.json", json.dumps(passwords)), ("probe.py", PROBE)):
            (tmp_path / name).write_text(text)
            source = f"src={tmp_path / name} dest=/root/{name} mode=0600"
            host.ansible("copy", source, check=False, become=True)
        try:
            return json.loads(host.check_output("python3 /root/probe.py"))
        finally:
            host.check_output("rm -f /root/probe.json /root/probe.py")

    return ask


@pytest.fixture
def read(inventory):
    """Return a function that reads all secrets of the inventory, by name."""

    def files():
        paths = (inventory / "secrets").glob("*.txt")
        return {path.name.removesuffix(".txt"): path.read_text().strip() for path in paths}

    return files


def test_no_request_fails_and_nothing_is_lost(
    operator, site, sql, hook, read, lets_in, tmp_path, monkeypatch
):
    monkeypatch.setenv("ANSIBLE_LOG_PATH", str(tmp_path / "ansible.log"))
    old = read()
    page = site.get("/")
    form = {"csrf_token": TOKEN.search(page.text)[1], "author": "Ada", "body": "as before"}
    jobs = hook("POST", "/hooks/jobs", json={"count": 20, "seconds": 1}).json()["url"]
    with Load(site.url, name=site.name, rate=20) as load:
        done = operator.play("rotate_secrets", "-vvv", "--diff")
    new = read()
    said = done.output + (tmp_path / "ansible.log").read_text()
    assert done.code == 0, done.output[-3000:]
    assert not load.failed, f"{load.report()}\n{load.failed[:5]}"
    rows = load.rows(row[0] for row in sql.rows(f"USE sample; {load.statement}"))
    assert (rows.lost, rows.doubled) == ([], [])

    assert [name for name in NAMES if new[name] == old[name]] == []
    assert new["hook_api_key"] == old["hook_api_key"]
    tried = {name: [new[name], old[name]] for name in SERVERS}
    assert lets_in(**tried) == {name: [True, False] for name in SERVERS}
    # The old session, and the form that it was given, are still good.
    headers = {"Referer": f"https://{site.name}/"}
    sent = site.post("/notes", data=form, cookies=page.cookies, headers=headers)
    assert sent.status_code == 303
    batch = wait_for(lambda: (got := hook("GET", jobs).json())["finished"] == 20 and got, 60)
    assert batch["failed"] == 0
    assert new["secret_key.before"] == old["secret_key"]
    assert not [name for name in SERVERS if f"{name}.before" in new]
    shown = {name for secrets in (old, new) for name, value in secrets.items() if value in said}
    assert shown == set()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("secrets : Make the new ones", id="the new are made"),
        pytest.param("release : Switch to the release", id="the app switches"),
        pytest.param("redis : Let in whom the file of users names", id="a server is told"),
    ],
)
def test_one_that_was_cut_is_ended_by_the_next(operator, site, read, lets_in, moment):
    old = read()
    operator.interrupt("rotate_secrets", moment, rotate_secrets="database,cache")
    assert site.get("/readyz").status_code == 200
    between = read()
    for name in ("database", "cache"):
        kept = {between[name], between.get(f"{name}.before")}
        assert lets_in(**{name: [word for word in kept if word]})[name].count(True) >= 1

    done = operator.play("rotate_secrets", rotate_secrets="database,cache")
    assert done.code == 0, done.output[-3000:]
    new = read()
    tried = {name: [new[name], old[name]] for name in ("database", "cache")}
    assert lets_in(**tried) == {"database": [True, False], "cache": [True, False]}
    assert new["queue"] == old["queue"]
    assert site.get("/readyz").status_code == 200


def test_what_is_no_secret_is_refused_and_nothing_changes(operator, read):
    old = read()
    done = operator.play("rotate_secrets", rotate_secrets="databse")
    assert done.code
    assert done.says("databse is no secret of this inventory")
    assert read() == old
