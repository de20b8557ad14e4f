"""A rotation that is cut is ended by the next one, and sessions of before can be ended."""

from __future__ import annotations

import pytest

# A rotation takes minutes, most of them on the controller: one host is enough.
testinfra_hosts = ["ansible://trixie"]


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("secrets : Make the new ones", id="the new are made"),
        pytest.param(
            "gunicorn : Ensure that the release that serves has its present settings",
            id="the app switches",
        ),
        pytest.param("redis : Configure the users of the running instances", id="a server is told"),
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
    done = operator.play("rotate_secrets", rotate_secrets="databases")
    assert done.code
    assert done.says("databases is no secret of this inventory")
    assert read() == old


def test_sessions_end_when_the_key_of_before_is_retired(operator, site, read):
    page = site.get("/")
    assert operator.play("rotate_secrets", rotate_secrets="secret_key").code == 0
    key = read()["secret_key"]
    assert site.write(page, body="in the session of before").status_code == 303
    done = operator.play("rotate_secrets", rotate_secrets_retire="true")
    assert done.code == 0, done.output[-3000:]
    assert read()["secret_key"] == key
    assert "secret_key.before" not in read()
    assert site.write(page, body="after its end").status_code == 400
