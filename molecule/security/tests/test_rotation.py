"""All secrets are rotated under load without failed requests."""

from __future__ import annotations

from helpers.load import Load
from helpers.wait import wait_for

# Scenario data tests two passwords at a time on each version of the servers.
testinfra_hosts = ["ansible://trixie"]
NAMES = ("database", "migration", "cache", "queue", "secret_key")
SERVERS = NAMES[:-1]


def test_no_request_fails_and_nothing_is_lost(
    operator, site, sql, read_secrets, accepted, tmp_path, monkeypatch
):
    monkeypatch.setenv("ANSIBLE_LOG_PATH", str(tmp_path / "ansible.log"))
    old, page = read_secrets(), site.get("/")
    key = {"X-Api-Key": old["diagnostics_key"]}
    jobs = site.post("/jobs", json={"count": 20, "seconds": 1}, headers=key).json()["url"]
    with Load(site.url, name=site.name, rate=20) as load:
        done = operator.play("rotate_secrets", "-vvv", "--diff")
    new = read_secrets()
    output = done.output + (tmp_path / "ansible.log").read_text()
    assert done.code == 0, done.output[-3000:]
    assert not load.failed, f"{load.report()}\n{load.failed[:5]}"
    rows = load.rows(row[0] for row in sql.rows(f"USE sample; {load.statement}"))
    assert (rows.lost, rows.doubled) == ([], [])

    assert [name for name in NAMES if new[name] == old[name]] == []
    assert new["diagnostics_key"] == old["diagnostics_key"]
    tried = {name: [new[name], old[name]] for name in SERVERS}
    assert accepted(**tried) == {name: [True, False] for name in SERVERS}
    # The previous session and its form are still accepted.
    assert site.write(page, body="in the previous session").status_code == 303

    def finished():
        batch = site.get(jobs, headers=key).json()
        return batch["finished"] == 20 and batch

    assert wait_for(finished, 60)["failed"] == 0
    assert new["secret_key.previous"] == old["secret_key"]
    assert not [name for name in SERVERS if f"{name}.previous" in new]
    values = {name: value for secrets in (old, new) for name, value in secrets.items()}
    assert [name for name, value in values.items() if value in output] == []
