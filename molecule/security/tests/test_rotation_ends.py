"""A rotation that is cut is ended by the next one, and sessions of before can be ended."""

from __future__ import annotations

import shutil

from helpers.operator import Operator

# A rotation takes minutes, most of them on the controller: one host is enough.
testinfra_hosts = ["ansible://trixie"]
NAMES = ("database", "cache", "secret_key")
MOMENTS = (
    "secrets : Make the new ones",
    "redis : Configure the users of the running instances",
    "gunicorn : Ensure that the release that serves has its present settings",
)


def test_one_that_was_cut_three_times_is_ended_by_the_next(
    operator, inventory, site, read, lets_in, tmp_path
):
    """Meanwhile and afterwards, copies of the secrets that lack something are refused."""
    old, page = read(), site.get("/")
    copies = {name: tmp_path / name for name in ("older", "half", "whole")}
    shutil.copytree(inventory, copies["older"])
    for moment in MOMENTS:
        operator.interrupt("rotate_secrets", moment, rotate_secrets=",".join(NAMES))
        assert site.get("/readyz").status_code == 200
        between = read()
        for name in ("database", "cache"):
            kept = {between[name], between.get(f"{name}.previous")}
            assert lets_in(**{name: [word for word in kept if word]})[name].count(True) >= 1
    shutil.copytree(inventory, copies["whole"])
    shutil.copytree(inventory, copies["half"], ignore=shutil.ignore_patterns("*.previous.txt"))

    def refused(copy: str, words: str) -> None:
        done = Operator(str(copies[copy])).play("deploy")
        assert (bool(done.code), done.changed) == (True, 0)
        assert done.says(words), done.output

    refused("half", "app_database_password_previous")
    refused("older", "a rotation has replaced this secret on trixie")

    done = operator.play("rotate_secrets", rotate_secrets=",".join(NAMES))
    assert done.code == 0, done.output[-3000:]
    new = read()
    tried = {name: [new[name], old[name]] for name in ("database", "cache")}
    assert lets_in(**tried) == {"database": [True, False], "cache": [True, False]}
    assert new["queue"] == old["queue"]
    assert site.get("/readyz").status_code == 200
    refused(
        "whole", "app_cache_password_previous, app_database_password_previous: retired on trixie"
    )

    assert site.write(page, body="in the session of before").status_code == 303
    done = operator.play("rotate_secrets", rotate_secrets_retire="true")
    assert done.code == 0, done.output[-3000:]
    assert read()["secret_key"] == new["secret_key"]
    assert "secret_key.previous" not in read()
    assert site.write(page, body="after its end").status_code == 400
    assert operator.play("deploy", "--check").code == 0


def test_what_is_no_secret_is_refused_and_nothing_changes(operator, read):
    old = read()
    done = operator.play("rotate_secrets", rotate_secrets="databases")
    assert done.code
    assert done.says("databases is no secret of this inventory")
    assert read() == old
