"""Selection of secrets for a rotation, and reasons for rejecting one."""

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
    """Return the stack's secrets as in an inventory, some with a previous value."""
    return {
        name: secret | {"present": f"{name} now", "previous": previous.get(name, "")}
        for name, secret in OWN.items()
    }


def files(*names: str, previous: tuple[str, ...] = (), under_way: tuple[str, ...] = ()) -> Any:
    """Return the result of module secret_files for secrets with these names."""
    return {
        "present": {name: f"{name} now" for name in names},
        "previous": {name: f"{name} previous" if name in previous else "" for name in names},
        "in_progress": list(under_way),
    }


def plan(own: Any, found: Any, asked: str = "", revoke: bool = False, **groups: list[str]) -> Any:
    """Plan a rotation."""
    return rotation_plan(own, found, GROUPS | groups, asked, "/inv/secrets", revoke)


def test_all_secrets_in_files_are_rotated():
    made = plan(given(), files(*OWN, "api_key"))
    assert (made["generated"], made["external"], made["problems"]) == (list(OWN), [], [])


def test_secrets_are_selected_by_name():
    made = plan(given(), files(*OWN, "api_key"), "cache, api_key")
    assert made["names"] == ["cache", "api_key"]


def test_vault_secret_is_rotated_once_the_inventory_has_both_values():
    made = plan(given(database="database previous"), files("cache"))
    assert (made["generated"], made["external"]) == (["cache"], ["database"])


def test_unchanged_vault_secret_is_not_rotated():
    assert plan(given(database="database now"), files("cache"))["external"] == []


def test_vault_secret_without_previous_value_is_rejected_with_instructions():
    refusals = plan(given(), files("cache"), "database")["problems"]
    assert len(refusals) == 1
    assert "app_database_password_previous" in refusals[0]
    assert "/inv/secrets/database.txt" in refusals[0]


def test_inventory_with_only_vault_secrets_is_rejected():
    assert "docs/secrets.md" in plan(given(), files())["problems"][0]


def test_secret_of_an_external_server_is_not_rotated():
    found = files(*OWN)
    assert plan(given(), found, database=[])["generated"] == ["cache", "secret_key"]
    (refusal,) = plan(given(), found, "database", database=[])["problems"]
    assert "no host of this inventory is in group database" in refusal


def test_unset_secret_is_rejected():
    own = given() | {"cache": OWN["cache"] | {"present": "", "previous": ""}}
    (refusal,) = plan(own, files("database"), "cache")["problems"]
    assert "app_cache_password is not set" in refusal


def test_unknown_name_is_rejected_with_the_valid_names():
    (refusal,) = plan(given(), files(*OWN, "api_key"), "databases")["problems"]
    assert "databases" in refusal
    assert "database, cache, secret_key, api_key" in refusal


@pytest.mark.parametrize("asked", ["", "cache"])
def test_interrupted_rotation_is_completed_first(asked):
    found = files(*OWN, under_way=("database",))
    made = plan(given(database="database previous"), found, asked)
    assert made["generated"] == ["database"]
    assert made["deferred"] == [asked] * bool(asked)
    assert made["names"] == ["database"]


def test_revoking_generates_no_secrets():
    assert plan(given(), files(*OWN), revoke=True)["names"] == []
    for asked, under_way in (("cache", ()), ("", ("cache",))):
        refused = plan(given(), files(*OWN, under_way=under_way), asked, revoke=True)
        assert "Nothing is revoked" in refused["problems"][0]


def test_message_names_variables_that_do_not_read_previous_values():
    found = files(*OWN, previous=tuple(OWN))
    own = given(cache="cache previous", secret_key="something else")
    plan = {"generated": ["database", "cache", "secret_key", "more"]}
    said = unread_previous(plan, own, found, "/s")
    assert [line.partition(":")[0] for line in said] == [
        "app_database_password_previous",
        "app_secret_key_previous",
    ]
    assert "/s/database.previous.txt" in said[0]


def test_empty_secret_has_no_digest():
    assert secret_digest("") == ""
    assert len(secret_digest("x")) == 64


@pytest.mark.parametrize(("mode", "warned"), [(0o700, False), (0o777, True)])
def test_directory_readable_by_others_causes_a_warning(tmp_path, capfd, mode, warned):
    (tmp_path / "database.txt").write_text("x")
    tmp_path.chmod(mode)
    assert files_in(str(tmp_path)) == [str(tmp_path / "database.txt")]
    assert (f"chmod -R go= {tmp_path}" in "".join(capfd.readouterr()).replace("\n", " ")) == warned
    assert files_in(str(tmp_path / "none")) == []
