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


def secrets(**values):
    """Return secrets in the form of the module: a value, or a value and the previous one."""
    found = {}
    for name, given in values.items():
        value, previous = given if isinstance(given, tuple) else (given, "")
        found[name] = {
            "value": value,
            "previous": previous,
            "strict": name != OWN,
            "variable": name,
        }
    return found


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Return a host: `host.use(…)` records secrets, `host.problems(…)` checks them."""
    monkeypatch.setattr(secret_digests, "ETC", tmp_path / "etc")

    class Host:
        folder = tmp_path / "secrets"
        environment = tmp_path / "etc/shop/current/environment"

        def digests(self):
            return secret_digests.Digests(self.folder, "shop")

        def use(self, revoked=(), rotated=False, **values):
            digests = self.digests()
            digests.write(digests.wanted(secrets(**values), list(revoked), rotated))

        def problems(self, **values):
            digests, asked = self.digests(), secrets(**values)
            digests.adopt(asked, secret_digests.environment_of("shop"))
            found = {
                name: digests.problem(name, one["value"], one["previous"], one["strict"])
                for name, one in asked.items()
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
        (("n", "o"), "refused"),
        (("o", "n"), "old"),
    ],
)
def test_after_a_rotation(host, given, problem):
    host.use(**{PASSWORD: "o"})
    host.use(rotated=True, **{PASSWORD: ("n", "o")})
    host.use(rotated=True, revoked=[PASSWORD], **{PASSWORD: ("n", "o")})
    assert host.problems(**{PASSWORD: given}).get(PASSWORD) == problem


@pytest.mark.parametrize(
    ("given", "problem"), [(("n", "o"), None), ("n", "previous"), ("o", "old"), ("x", "other")]
)
def test_while_both_are_accepted(host, given, problem):
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


def test_secrets_of_an_older_version_are_read_from_the_environment_file(host):
    host.environment.parent.mkdir(parents=True)
    lines = [
        '# Ansible managed\nSECRET_KEY="a \\"key\\" \\$5"',
        'DATABASE_URL="mysql+pymysql://shop:d1@/shop?unix_socket=/run/mysqld/mysqld.sock"',
        f'CACHE_URL="redis://elsewhere/"\n{OWN}="m1"\n',
    ]
    host.environment.write_text("\n".join(lines))
    asked = secrets(**{KEY: 'a "key" $5', PASSWORD: "d1", "app_cache_password": "c", OWN: "m2"})
    variables = ("SECRET_KEY", "DATABASE_URL", "CACHE_URL", OWN)
    for secret, variable in zip(asked.values(), variables, strict=True):
        secret["variable"] = variable
    digests = host.digests()
    digests.adopt(asked, secret_digests.environment_of("shop"))
    assert digests.secrets.keys() == {KEY, PASSWORD, OWN}
    assert digests.problem(KEY, 'a "key" $5', "", True) == ""
    assert digests.problem(KEY, "other", "", True) == "other"
    assert digests.problem(PASSWORD, "d1", "", True) == ""
    assert digests.problem(PASSWORD, "d2", "d1", True) == ""
    assert digests.problem(OWN, "m2", "", False) == "changed"
