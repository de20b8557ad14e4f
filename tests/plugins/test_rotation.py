"""Which secrets are rotated, and why one that was asked for is not."""

from __future__ import annotations

from typing import Any

import pytest

from rotation import files_in, rotation_plan, secret_digest, unread_previous

GROUPS = {"app": ["web"], "database": ["db"], "cache": ["db"], "queue": ["db"]}
OWN = {
    "database": {"variable": "app_database_password", "groups": ["database"]},
    "cache": {"variable": "app_cache_password", "groups": ["cache"]},
    "secret_key": {"variable": "app_secret_key", "groups": ["app"]},
}


def given(**previous: str) -> dict[str, dict[str, Any]]:
    """Return the stack's own secrets as an inventory gives them, some with a previous one."""
    return {
        name: secret | {"present": f"{name} now", "previous": previous.get(name, "")}
        for name, secret in OWN.items()
    }


def files(*names: str, previous: tuple[str, ...] = (), under_way: tuple[str, ...] = ()) -> Any:
    """Return what the folder has of secrets with these names."""
    return {
        "present": {name: f"{name} now" for name in names},
        "previous": {name: f"{name} previous" if name in previous else "" for name in names},
        "in_progress": list(under_way),
    }


def plan(own: Any, found: Any, asked: str = "", revoke: bool = False, **groups: list[str]) -> Any:
    """Plan a rotation."""
    return rotation_plan(own, found, GROUPS | groups, asked, "/inv/secrets", revoke)


def test_all_that_come_from_files_are_made_anew():
    made = plan(given(), files(*OWN, "api_key"))
    assert (made["generated"], made["external"], made["problems"]) == (list(OWN), [], [])


def test_some_are_asked_for_by_name():
    made = plan(given(), files(*OWN, "api_key"), "cache, api_key")
    assert made["names"] == ["cache", "api_key"]


def test_those_of_a_vault_are_rotated_once_the_inventory_gives_both():
    made = plan(given(database="database previous"), files("cache"))
    assert (made["generated"], made["external"]) == (["cache"], ["database"])


def test_one_that_is_the_same_as_before_is_none_to_rotate():
    assert plan(given(database="database now"), files("cache"))["external"] == []


def test_one_of_a_vault_is_refused_with_what_to_do():
    refusals = plan(given(), files("cache"), "database")["problems"]
    assert len(refusals) == 1
    assert "app_database_password_previous" in refusals[0]
    assert "/inv/secrets/database.txt" in refusals[0]


def test_a_vault_alone_has_nothing_to_rotate_by_itself():
    assert "docs/secrets.md" in plan(given(), files())["problems"][0]


def test_one_of_a_server_elsewhere_is_not_rotated():
    found = files(*OWN)
    assert plan(given(), found, database=[])["generated"] == ["cache", "secret_key"]
    (refusal,) = plan(given(), found, "database", database=[])["problems"]
    assert "no host of this inventory is in group database" in refusal


def test_one_that_the_app_has_not_is_refused():
    own = given() | {"cache": OWN["cache"] | {"present": "", "previous": ""}}
    (refusal,) = plan(own, files("database"), "cache")["problems"]
    assert "app_cache_password is not set" in refusal


def test_an_unknown_name_is_refused_with_those_there_are():
    (refusal,) = plan(given(), files(*OWN, "api_key"), "databases")["problems"]
    assert "databases" in refusal
    assert "database, cache, secret_key, api_key" in refusal


@pytest.mark.parametrize("asked", ["", "cache"])
def test_one_that_was_cut_is_ended_first(asked):
    found = files(*OWN, under_way=("database",))
    made = plan(given(database="database previous"), found, asked)
    assert made["generated"] == ["database"]
    assert made["deferred"] == [asked] * bool(asked)
    assert made["names"] == ["database"]


def test_to_revoke_makes_nothing_new():
    assert plan(given(), files(*OWN), revoke=True)["names"] == []
    for asked, under_way in (("cache", ()), ("", ("cache",))):
        refused = plan(given(), files(*OWN, under_way=under_way), asked, revoke=True)
        assert "Nothing is revoked" in refused["problems"][0]


def test_an_inventory_that_does_not_read_the_previous_one_is_told_the_line():
    found = files(*OWN, previous=tuple(OWN))
    own = given(cache="cache previous", secret_key="something else")
    plan = {"generated": ["database", "cache", "secret_key", "more"]}
    said = unread_previous(plan, own, found, "/s")
    assert [line.partition(":")[0] for line in said] == [
        "app_database_password_previous",
        "app_secret_key_previous",
    ]
    assert "/s/database.previous.txt" in said[0]


def test_nothing_has_no_digest():
    assert secret_digest("") == ""
    assert len(secret_digest("x")) == 64


@pytest.mark.parametrize(("mode", "warned"), [(0o700, False), (0o777, True)])
def test_a_folder_that_all_may_read_is_told(tmp_path, capfd, mode, warned):
    (tmp_path / "database.txt").write_text("x")
    tmp_path.chmod(mode)
    assert files_in(str(tmp_path)) == [str(tmp_path / "database.txt")]
    assert (f"chmod -R go= {tmp_path}" in "".join(capfd.readouterr()).replace("\n", " ")) == warned
    assert files_in(str(tmp_path / "none")) == []
