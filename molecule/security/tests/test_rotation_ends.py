"""An interrupted rotation is completed by the next one, and previous sessions can be revoked."""

from __future__ import annotations

import shutil

from helpers.operator import Operator

# A rotation takes minutes, mostly on the controller, so one host is enough.
testinfra_hosts = ["ansible://trixie"]
NAMES = ("database", "cache", "secret_key")
# After the new secrets are written, and after the servers accept both. The plans after
# interruptions at other points are tested in tests/plugins/test_rotation.py.
INTERRUPTED_AT = (
    "redis : Configure the users of the running instances",
    "gunicorn : Restart the active release if its settings changed",
)


def test_next_rotation_completes_an_interrupted_one(
    operator, inventory, site, read, lets_in, tmp_path
):
    """Copies of the secrets that are outdated or incomplete are rejected."""
    old, page = read(), site.get("/")
    copies = {name: tmp_path / name for name in ("older", "half", "whole")}
    shutil.copytree(inventory, copies["older"])
    for task in INTERRUPTED_AT:
        operator.interrupt("rotate_secrets", task, rotate_secrets=",".join(NAMES))
        assert site.get("/readyz").status_code == 200
        between = read()
        for name in ("database", "cache"):
            kept = {between[name], between.get(f"{name}.previous")}
            assert lets_in(**{name: [word for word in kept if word]})[name].count(True) >= 1
    shutil.copytree(inventory, copies["whole"])
    shutil.copytree(inventory, copies["half"], ignore=shutil.ignore_patterns("*.previous.txt"))

    def assert_rejected(copy: str, words: str) -> None:
        done = Operator(str(copies[copy])).play("deploy")
        assert (bool(done.code), done.changed) == (True, 0)
        assert done.says(words), done.output

    assert_rejected("half", "app_database_password_previous")
    assert_rejected("older", "a rotation has replaced this secret on trixie")

    done = operator.play("rotate_secrets", rotate_secrets=",".join(NAMES))
    assert done.code == 0, done.output[-3000:]
    new = read()
    tried = {name: [new[name], old[name]] for name in ("database", "cache")}
    assert lets_in(**tried) == {"database": [True, False], "cache": [True, False]}
    assert new["queue"] == old["queue"]
    assert site.get("/readyz").status_code == 200
    assert_rejected(
        "whole", "app_cache_password_previous, app_database_password_previous: revoked on trixie"
    )

    assert site.write(page, body="in the session of before").status_code == 303
    done = operator.play("rotate_secrets", secrets_revoke_previous="true")
    assert done.code == 0, done.output[-3000:]
    assert read()["secret_key"] == new["secret_key"]
    assert "secret_key.previous" not in read()
    assert site.write(page, body="after its end").status_code == 400
    assert operator.play("deploy", "--check").code == 0


def test_unknown_secret_is_rejected_and_nothing_changes(operator, read):
    old = read()
    done = operator.play("rotate_secrets", rotate_secrets="databases")
    assert done.code
    assert done.says("databases is no secret of this inventory")
    assert read() == old
