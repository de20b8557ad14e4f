"""Which migrations lie between two releases."""

from __future__ import annotations

import pytest

from releasing import ROLE, load

release_migrations = load("release_migrations", ROLE / "library/release_migrations.py")


@pytest.fixture
def release(tmp_path):
    def release(name, **files):
        for path, text in files.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path / name

    return release


def between(old, new, paths=()):
    old, new = (release_migrations.migrations(folder, list(paths)) for folder in (old, new))
    return release_migrations.difference(old, new)


@pytest.mark.parametrize("folder", ["migrations/versions", "shop/db/alembic/versions"])
def test_alembics(release, folder):
    parent = folder.rsplit("/", 1)[0]
    common = {f"{parent}/env.py": "x", f"{folder}/1.py": "1", "shop/versions/2.py": "no"}
    old = release("old", **common, **{f"{folder}/2.py": "2", f"{folder}/__pycache__/2.pyc": "b"})
    new = release("new", **common | {"shop/versions/2.py": "other", f"{parent}/env.py": "y"})
    assert between(old, new) == [f"{folder}/2.py"]
    assert between(new, old) == []


def test_those_of_others(release):
    old = release("old", **{"shop/migrations/1.sql": "a", "shop/migrations/2.sql": "b"})
    new = release("new", **{"shop/migrations/1.sql": "changed", "other.py": ""})
    assert between(old, new) == ["shop/migrations/1.sql", "shop/migrations/2.sql"]


def test_the_environments_own_do_not_count(release):
    old = release("old", **{".venv/lib/flask/migrations/1.py": "a", "web.py": ""})
    assert between(old, release("new", **{"web.py": ""})) == []


def test_folders_can_be_named(release):
    files = {"schema/1.sql": "a", "migrations/1.sql": "a"}
    assert between(release("old", **files), release("new"), ["schema"]) == ["schema/1.sql"]
