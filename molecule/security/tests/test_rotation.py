"""All secrets are rotated under load without failed requests."""

from __future__ import annotations

from helpers.load import Load
from helpers.wait import wait_for

# Scenario data tests two passwords at a time on each version of the servers.
testinfra_hosts = ["ansible://trixie"]
NAMES = ("database", "migration", "cache", "queue", "secret_key")
SERVERS = NAMES[:-1]


def test_no_request_fails_and_nothing_is_lost(
    operator, site, sql, diagnostics, read, lets_in, tmp_path, monkeypatch
):
    monkeypatch.setenv("ANSIBLE_LOG_PATH", str(tmp_path / "ansible.log"))
    old = read()
    page = site.get("/")
    jobs = diagnostics("POST", "/jobs", json={"count": 20, "seconds": 1}).json()["url"]
    with Load(site.url, name=site.name, rate=20) as load:
        done = operator.play("rotate_secrets", "-vvv", "--diff")
    new = read()
    said = done.output + (tmp_path / "ansible.log").read_text()
    assert done.code == 0, done.output[-3000:]
    assert not load.failed, f"{load.report()}\n{load.failed[:5]}"
    rows = load.rows(row[0] for row in sql.rows(f"USE sample; {load.statement}"))
    assert (rows.lost, rows.doubled) == ([], [])

    assert [name for name in NAMES if new[name] == old[name]] == []
    assert new["diagnostics_key"] == old["diagnostics_key"]
    tried = {name: [new[name], old[name]] for name in SERVERS}
    assert lets_in(**tried) == {name: [True, False] for name in SERVERS}
    # The previous session and its form are still accepted.
    assert site.write(page, body="as before").status_code == 303
    batch = wait_for(lambda: (got := diagnostics("GET", jobs).json())["finished"] == 20 and got, 60)
    assert batch["failed"] == 0
    assert new["secret_key.previous"] == old["secret_key"]
    assert not [name for name in SERVERS if f"{name}.previous" in new]
    shown = {name for secrets in (old, new) for name, value in secrets.items() if value in said}
    assert shown == set()
