"""Selection of secrets for a rotation, and reasons for rejecting one."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from rotation import (
    STACK,
    files_in,
    rotation_plan,
    rotation_report,
    secret_problems,
    secrets_of,
    unread_previous,
)

GROUPS = {"app": ["web"], "database": ["db"], "cache": ["db"], "queue": ["db"]}
NAMES = ["database", "cache", "secret_key"]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def values(**previous: str) -> dict[str, str]:
    """Return the variables of an inventory, some with a previous value."""
    found = {STACK[name][0]: f"{name} now" for name in NAMES}
    return found | {f"{STACK[name][0]}_previous": value for name, value in previous.items()}


def files(*names: str, in_progress: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the result of module secret_files for secrets with these names."""
    return {
        "present": {name: digest(f"{name} now") for name in names},
        "previous": {name: digest(f"{name} previous") for name in names},
        "in_progress": list(in_progress),
    }


def plan(values: Any, found: Any, requested: str = "", revoke: bool = False, **groups) -> Any:
    """Plan a rotation."""
    return rotation_plan(values, found, GROUPS | groups, requested, "/inv/secrets", revoke)


def test_all_secrets_in_files_are_rotated():
    made = plan(values(), files(*NAMES, "api_key"))
    assert made == {
        "generated": NAMES,
        "external": [],
        "names": NAMES,
        "deferred": [],
        "revoked": ["database", "cache"],
        "problems": [],
    }


def test_secrets_are_selected_by_name():
    assert plan(values(), files(*NAMES, "api_key"), "cache, api_key")["names"] == [
        "cache",
        "api_key",
    ]


@pytest.mark.parametrize(
    ("previous", "external"), [("database previous", ["database"]), ("database now", []), ("", [])]
)
def test_vault_secret_is_rotated_once_the_inventory_has_both_values(previous, external):
    made = plan(values(database=previous), files("cache"))
    assert (made["generated"], made["external"]) == (["cache"], external)


@pytest.mark.parametrize(
    ("changed", "found", "requested", "groups", "message"),
    [
        ({}, ["cache"], "database", {}, "app_database_password_previous to the present one"),
        ({}, [], "", {}, "Nothing is rotated: /inv/secrets has no secret of the stack"),
        ({}, NAMES, "database", {"database": []}, "group database has no hosts"),
        ({"app_cache_password": ""}, ["database"], "cache", {}, "app_cache_password is not set"),
        ({}, [*NAMES, "api_key"], "databases", {}, "migration, cache, queue, secret_key, api_key"),
    ],
)
def test_secret_that_cannot_be_rotated_is_rejected(changed, found, requested, groups, message):
    (problem,) = plan(values() | changed, files(*found), requested, **groups)["problems"]
    assert message in problem


def test_secret_of_an_external_server_is_not_rotated():
    assert plan(values(), files(*NAMES), database=[])["generated"] == ["cache", "secret_key"]


@pytest.mark.parametrize("requested", ["", "cache"])
def test_interrupted_rotation_is_completed_first(requested):
    found = files(*NAMES, in_progress=("database",))
    made = plan(values(database="database previous"), found, requested)
    assert made["names"] == ["database"]
    assert made["deferred"] == [requested] * bool(requested)
    again = "Run the playbook again for cache"
    assert (again in "".join(rotation_report(made, {}))) == bool(requested)


def test_revoking_generates_no_secrets():
    made = plan(values(), files(*NAMES, "api_key"), revoke=True)
    assert (made["names"], made["problems"]) == ([], [])
    assert made["revoked"] == [*STACK, "api_key"]
    report = rotation_report(made, values(secret_key="in a vault"))
    assert report[-1] == "Remove app_secret_key_previous from the inventory."
    for requested, in_progress in (("cache", ()), ("", ("cache",))):
        rejected = plan(values(), files(*NAMES, in_progress=in_progress), requested, revoke=True)
        assert "Nothing is revoked" in rejected["problems"][0]


def test_report_names_what_is_left_to_do():
    made = plan(values(database="database previous"), files("cache", "secret_key"))
    report = "\n".join(rotation_report(made, values()))
    assert "New: cache, secret_key, database." in report
    assert "Remove app_database_password_previous from the inventory" in report
    assert report.count("Remove ") == 1
    assert "stay valid until the next rotation" in report


def test_message_names_variables_that_do_not_read_previous_values():
    given = values(cache="cache previous", secret_key="something else")
    made = {"generated": [*NAMES, "more"]}
    messages = unread_previous(made, given, files(*NAMES), "/s")
    assert [message.partition(":")[0] for message in messages] == [
        "app_database_password_previous",
        "app_secret_key_previous",
    ]
    assert "/s/database.previous.txt" in messages[0]


def test_host_has_the_secrets_of_its_groups():
    own = {"API_KEY": "x"}
    app = secrets_of(values(cache="old"), own, GROUPS | {"database": []}, "web", ["cache"])
    assert app.keys() == {variable for variable, _ in STACK.values()} | {"API_KEY"}
    cache = {"value": "cache now", "previous": "old", "strict": True, "revoked": True}
    assert app["app_cache_password"] == cache
    assert not app["app_database_password"]["strict"]  # an external server
    assert not app["API_KEY"]["strict"]
    server = secrets_of(values(), own, GROUPS | {"queue": []}, "db")
    assert server.keys() == {
        "app_database_password",
        "app_migration_password",
        "app_cache_password",
    }


def test_external_secret_may_change_unless_it_was_just_generated(tmp_path):
    problems = {"API_KEY": "changed", "app_database_password": "changed"}
    hostvars = {"web": {"__secrets_query": {"problems": problems}}}
    generated = tmp_path / "api_key.txt"
    generated.write_text("fresh\n")
    given = (hostvars, ["web"], [], "/inv", "/inv/secrets", [str(generated)])
    assert secret_problems(*given, {"API_KEY": "of mine"}) == []
    (message,) = secret_problems(*given, {"API_KEY": "fresh"})
    assert message.startswith("web: set up with other secrets than /inv has: API_KEY. ")


@pytest.mark.parametrize("rotating", [False, True])
def test_previous_value_may_be_revoked_at_the_end_of_a_rotation(rotating):
    hostvars = {"db": {"__secrets_query": {"problems": {"app_cache_password": "revoked"}}}}
    found = secret_problems(hostvars, ["db"], [], "/inv", "/inv/secrets", [], {}, rotating)
    assert len(found) == (not rotating)


@pytest.mark.parametrize(("mode", "warned"), [(0o700, False), (0o777, True)])
def test_directory_readable_by_others_causes_a_warning(tmp_path, capfd, mode, warned):
    (tmp_path / "database.txt").write_text("x")
    tmp_path.chmod(mode)
    assert files_in(str(tmp_path)) == [str(tmp_path / "database.txt")]
    assert (f"chmod -R go= {tmp_path}" in "".join(capfd.readouterr()).replace("\n", " ")) == warned
    assert files_in(str(tmp_path / "none")) == []
