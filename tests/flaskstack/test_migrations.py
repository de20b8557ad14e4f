"""The migrations between two releases."""

from __future__ import annotations

import pytest

from flaskstack.migrations import between

ENV = "db/alembic/env.py"
OWN = {"shop/migrations/1.sql": "a", ".venv/lib/flask/migrations/1.py": "a", "schema/1.sql": "a"}
ALEMBIC = {ENV: "x", "db/alembic/versions/1.py": "1", "shop/versions/2.py": "no"}
NEWER = ALEMBIC | {"db/alembic/versions/2.py": "2", "db/alembic/versions/2.pyc": "b"}


@pytest.mark.parametrize(
    ("served", "target", "paths", "files"),
    [
        (NEWER, ALEMBIC | {ENV: "y", "shop/versions/2.py": "z"}, [], ["db/alembic/versions/2.py"]),
        (ALEMBIC, NEWER, [], []),
        (OWN, {"web.py": ""}, [], ["shop/migrations/1.sql"]),
        (OWN, {"shop/migrations/1.sql": "b"}, [], ["shop/migrations/1.sql"]),
        (OWN, {"web.py": ""}, ["schema"], ["schema/1.sql"]),
    ],
)
def test_the_missing_migrations_of_a_release(tmp_path, served, target, paths, files):
    for name, tree in (("one", served), ("two", target)):
        for path, text in tree.items():
            file = tmp_path / name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    params = {"from": str(tmp_path / "one"), "to": str(tmp_path / "two"), "paths": paths}
    assert between(params) == {"changed": False, "files": files}
