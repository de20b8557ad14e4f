"""A deploy that fails leaves the old release serving, says why, and leaves nothing behind."""

from __future__ import annotations

import pytest

from repository import ROOT
from waiting import wait_for

FACTORY, VERSIONS = "sample_app/web/__init__.py", "migrations/versions"
NEWEST = max(path.stem for path in ROOT.glob(f"sample_app/{VERSIONS}/*.py")).partition("_")[0]
MIGRATION = f'''
"""A migration that does not work."""

from alembic import op

revision, down_revision = "9999", "{NEWEST}"


def upgrade() -> None:
    """Ask for a table that is not there."""
    op.execute("SELECT * FROM a_table_from_nowhere")
'''
DIES = """import os, threading
    threading.Timer(1.5, lambda: (print("had enough", flush=True), os._exit(3))).start()
    app = Flask(__name__)"""

# What is changed in the app, what is set, and what the message has besides who serves.
FAILURES = {
    "build": (
        (),
        {"app_build_commands": ["echo no such bundler >&2; exit 3"]},
        ["Run the build commands", "no such bundler"],
    ),
    "dependencies": (
        ("requirements.lock", "\nalembic==", "\nalembic==99."),
        {},
        ["Install what the lock says", "No matching distribution found for alembic==99"],
    ),
    "interpreter": (
        ("pyproject.toml", ">=3.11", ">=4"),
        {},
        ["app_python is", 'requires-python = ">=4"'],
    ),
    "migration": (
        (f"{VERSIONS}/9999_broken.py", "", MIGRATION),
        {},
        ["alembic upgrade head", "a_table_from_nowhere"],
    ),
    "dies at start": (
        (FACTORY, "from flask import Flask\n", "import not_there\nfrom flask import Flask\n"),
        {},
        ["Start the release", "sample-web@", "ModuleNotFoundError: No module named 'not_there'"],
    ),
    "never healthy": (
        ("sample_app/web/health.py", 'up = all(check["state"] == "up"', 'up = all(not "up"'),
        {"release_health_timeout": 4},
        ["was not well within 4 s", "GET /readyz: 503", '"status":"unready"', "sample-web@"],
    ),
    "healthy, then dies": (
        (FACTORY, "app = Flask(__name__)", DIES),
        {"release_watch": 6},
        ["Watch the release", "sample-web@", "lost 1 of its workers"],
    ),
    "process dies at start": (
        ("sample_app/worker.py", "settings = config.load()", 'raise SystemExit("no work today")'),
        {"release_watch": 6},
        ["sample-worker@1.service", "no work today"],
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_deploy_that_fails_changes_nothing(failure, under_load, operator, version, home):
    change, variables, words = FAILURES[failure]
    source, before, serves = version(*change), home(), home.release
    with under_load(failure) as load:
        done = operator.deploy(source, **variables)
    assert done.code != 0, done.output
    for sentence in words:
        assert done.says(sentence), f"{sentence!r} is not in:\n{done.output}"
    # What the app needs is refused before a host is looked at.
    assert serves in done.output or failure == "interpreter", done.output
    # Background processes follow the switch, so this one is found out after it.
    late = failure == "process dies at start"
    answered = [answer.release for answer in load.answers if answer.release]
    assert set(answered) == {serves} or (late and answered[-1] == serves), set(answered)
    assert home() == before


# The task in which the connection breaks, and what is on the host by then.
MOMENTS = {
    "as it is unpacked": ("Unpack the release", lambda home, before: True),
    "as it starts": (
        "Start the release beside the one that serves",
        lambda home, before: len(home.instances) == 2,
    ),
    "when it has started": ("Switch to the release", lambda home, before: True),
    "when it has switched": ("Switch to the release", lambda home, before: home.release != before),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_deploy_that_was_cut_is_cleaned_up_by_the_next(
    moment, under_load, operator, version, home
):
    before, (task, come) = home.release, MOMENTS[moment]
    with under_load(f"cut {moment}"):
        operator.cut(version(), task, lambda: come(home, before), release_watch=5)
        done = operator.deploy(version())
    assert done.code == 0, done.output
    assert home.release != before
    wait_for(lambda: len(home.instances) == 1 and not home.under_way, 60)
    half = "find /srv/sample/releases -mindepth 1 -maxdepth 1 -name '.*'"
    assert not home.host.check_output(half)
