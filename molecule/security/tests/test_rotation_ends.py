"""An interrupted rotation is completed by the next one, and previous sessions can be revoked."""

from __future__ import annotations

import pytest

# The plans of rotations are tested in tests/, and the rejection of outdated secrets in scenario
# reconfigure.
testinfra_hosts = ["ansible://bookworm"]
NAMES = ("database", "cache", "secret_key")


@pytest.fixture(scope="module")
def before(site):
    """Return a page of a session from before the rotations."""
    return site.get("/")


def test_next_rotation_completes_an_interrupted_one(operator, site, before, read_secrets, accepted):
    old = read_secrets()
    for task in (  # after the new secrets are written; after the servers accept both
        "redis : Configure the users of the running instances",
        "gunicorn : Restart the active release if its settings changed",
    ):
        operator.interrupt("rotate_secrets", task, rotate_secrets=",".join(NAMES))
        assert site.get("/readyz").status_code == 200
        between = read_secrets()
        tried = {
            name: [between[name], between.get(f"{name}.previous", "none")] for name in NAMES[:2]
        }
        assert all(map(any, accepted(**tried).values()))
    done = operator.play("rotate_secrets", rotate_secrets=",".join(NAMES))
    assert done.code == 0, done.output[-3000:]
    new = read_secrets()
    tried = {name: [new[name], old[name]] for name in NAMES[:2]}
    assert accepted(**tried) == {"database": [True, False], "cache": [True, False]}
    assert new["queue"] == old["queue"]
    assert site.get("/readyz").status_code == 200
    assert site.write(before, body="in the previous session").status_code == 303


def test_previous_sessions_end_when_the_previous_key_is_revoked(
    operator, site, before, read_secrets
):
    key = read_secrets()["secret_key"]
    done = operator.play("rotate_secrets", secrets_revoke_previous="true")
    assert done.code == 0, done.output[-3000:]
    assert read_secrets()["secret_key"] == key
    assert "secret_key.previous" not in read_secrets()
    assert site.write(before, body="after its end").status_code == 400
