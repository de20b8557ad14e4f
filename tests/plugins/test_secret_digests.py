"""A host keeps digests of its secrets and rejects other secrets with a reason."""

from __future__ import annotations

import json
import stat

import pytest

from helpers.imports import import_role_file

secret_digests = import_role_file("secrets/library/secret_digests.py")
KEY = "app_secret_key"
PASSWORD = "app_database_password"
OWN = "MAIL_PASSWORD"


def secrets(revoked=(), **values):
    """Return secrets in the form of the module: a value, or a value and the previous one."""
    found = {}
    for name, given in values.items():
        value, previous = given if isinstance(given, tuple) else (given, "")
        found[name] = {
            "value": value,
            "previous": previous,
            "strict": name != OWN,
            "revoked": name in revoked,
        }
    return found


@pytest.fixture
def host(tmp_path):
    """Return a host: `host.use(…)` records secrets, `host.problems(…)` checks them."""

    class Host:
        folder = tmp_path / "secrets"

        def digests(self):
            return secret_digests.Digests(self.folder, "shop")

        def use(self, rotated=False, **values):
            digests = self.digests()
            digests.write(digests.updated(secrets(**values), rotated))

        def problems(self, **values):
            digests = self.digests()
            found = {
                name: digests.problem(name, one["value"], one["previous"], one["strict"])
                for name, one in secrets(**values).items()
            }
            return {name: problem for name, problem in found.items() if problem}

    return Host()


def test_new_host_accepts_any_secrets(host):
    assert host.problems(**{KEY: "k1", PASSWORD: "d1", OWN: "m1"}) == {}


def test_digests_are_readable_by_root_and_contain_no_secret(host):
    host.use(**{KEY: "a-secret-key", OWN: "m1"})
    file = host.folder / "shop.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(host.folder.stat().st_mode) == 0o700
    assert "a-secret-key" not in file.read_text()
    salt = json.loads(file.read_text())["salt"]
    host.use(**{KEY: "a-secret-key", OWN: "m1"})
    assert json.loads(file.read_text())["salt"] == salt


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("n", None),
        ("x", "other"),
        (("x", "n"), None),  # a new rotation starts
        (("x", "y"), "other"),
        ("o", "old"),
        (("n", "o"), "revoked"),
        (("o", "n"), "old"),
    ],
)
def test_problem_with_a_secret_after_a_rotation(host, given, problem):
    host.use(**{PASSWORD: "o"})
    host.use(rotated=True, **{PASSWORD: ("n", "o")})
    host.use(rotated=True, revoked=[PASSWORD], **{PASSWORD: ("n", "o")})
    assert host.problems(**{PASSWORD: given}).get(PASSWORD) == problem


@pytest.mark.parametrize(
    ("given", "problem"), [(("n", "o"), None), ("n", "previous"), ("o", "old"), ("x", "other")]
)
def test_problem_with_a_secret_while_two_are_accepted(host, given, problem):
    host.use(**{PASSWORD: "o"})
    assert host.problems(**{PASSWORD: ("n", "o")}) == {}  # the rotation starts
    host.use(rotated=True, **{PASSWORD: ("n", "o")})
    assert host.problems(**{PASSWORD: given}).get(PASSWORD) == problem


def test_external_secret_may_change_until_it_is_rotated(host):
    host.use(**{OWN: "one"})
    assert host.problems(**{OWN: "two"}) == {OWN: "changed"}
    host.use(**{OWN: "two"})
    assert host.problems(**{OWN: "one"}) == {OWN: "changed"}
    host.use(rotated=True, **{OWN: "three"})
    assert host.problems(**{OWN: "two"}) == {OWN: "old"}


def test_recording_other_secrets_revokes_the_previous_ones(host):
    host.use(**{KEY: "one"})
    host.use(**{KEY: "two"})
    assert host.problems(**{KEY: "one"}) == {KEY: "old"}
    host.use(**{KEY: "one"})
    assert host.problems(**{KEY: "one"}) == {}
