"""A failed deploy leaves the previous release active, reports why, and removes its files."""

from __future__ import annotations

import pytest

from helpers.repository import ROOT
from helpers.wait import wait_for

FACTORY, VERSIONS = "sample_app/web/__init__.py", "migrations/versions"
NEWEST = max(path.stem for path in ROOT.glob(f"sample_app/{VERSIONS}/*.py")).partition("_")[0]
MIGRATION = f'''
"""A migration that fails."""

from alembic import op

revision, down_revision = "9999", "{NEWEST}"


def upgrade() -> None:
    """Read a table that does not exist."""
    op.execute("SELECT * FROM missing_table")
'''
# Prints the secret key, which messages must not show.
FAILS_AT_IMPORT = """import os
print(os.environ["SECRET_KEY"], flush=True)
import missing_module
from flask import Flask
"""
DIES = """import os, threading
    threading.Timer(5, lambda: os._exit(3)).start()
    app = Flask(__name__)"""

# The change to the app, the settings, and what the message contains.
FAILURES = {
    "build": (
        (),
        {"app_build_commands": ["echo no such bundler >&2; exit 3"]},
        ["app_build_commands: ", "no such bundler"],
    ),
    "migration": (
        (f"{VERSIONS}/9999_broken.py", "", MIGRATION),
        {},
        ["alembic upgrade head", "missing_table"],
    ),
    "import": (
        (FACTORY, "from flask import Flask\n", FAILS_AT_IMPORT),
        {"release_health_timeout": 300},  # long, since the failure is detected without waiting
        [
            "Gunicorn cannot import it",
            "ModuleNotFoundError: No module named 'missing_module'",
            "app_extra_requirements: [missing_module]",
        ],
    ),
    "never healthy": (
        ("sample_app/web/health.py", 'up = all(check["state"] == "up"', 'up = all(not "up"'),
        {"release_health_timeout": 10},
        ["was not healthy within 10 s", "GET /readyz: 503", '"status":"unready"', "sample-web@"],
    ),
    "healthy, then dies": (
        (FACTORY, "app = Flask(__name__)", DIES),
        {"release_watch": 9},
        ["Watch the release", "sample-web@", "lost 1 of its workers"],
    ),
    "process dies at start": (
        ("sample_app/worker.py", "settings = config.load()", 'raise SystemExit("no work today")'),
        {"release_watch": 6},
        ["sample-worker@1.service", "no work today"],
    ),
}


@pytest.fixture
def fail(operator, version, environment):
    """Return a function that runs a failing deploy and checks its message."""

    def fail(failure, active):
        change, variables, words = FAILURES[failure]
        done = operator.deploy(version(*change), **variables)
        assert done.code != 0, done.output
        for sentence in [*words, active]:
            assert done.says(sentence), f"{sentence!r} is not in:\n{done.output}"
        assert environment["SECRET_KEY"] not in done.output

    return fail


@pytest.mark.parametrize(
    "failure", ["build", "migration", "healthy, then dies", "process dies at start"]
)
def test_a_failed_deploy_changes_nothing(failure, under_load, fail, state):
    before, active = state(), state.release
    with under_load(failure) as load:
        fail(failure, active)
    answered = [answer.release for answer in load.answers if answer.release]
    # Background processes restart after the switch, so the new release answers until they fail.
    late = failure == "process dies at start"
    assert set(answered) == {active} or (late and answered[-1] == active), set(answered)
    assert state() == before
    assert state.worker == active


@pytest.mark.parametrize(
    ("task", "condition", "failure"),
    [
        (
            "Start the release beside the active one",
            lambda state, active: len(state.instances) == 2,
            "never healthy",
        ),
        (
            "Switch traffic to the release",
            lambda state, active: state.release != active,
            "import",
        ),
    ],
    ids=["starting", "switched"],
)
def test_a_deploy_recovers_from_an_interrupted_one_before_it_fails(
    task, condition, failure, under_load, operator, version, fail, state
):
    before, active = state(), state.release
    with under_load(f"interrupted: {task}") as load:
        operator.cut(version(), task, lambda: condition(state, active), release_watch=3)
        state.kill_deploy()
        switched = state.release
        fail(failure, switched)
    answered = [answer.release for answer in load.answers if answer.release]
    assert set(answered) <= {active, switched}
    assert answered[-1] == state.release == state.last_deploy["release"] == switched
    assert switched != active or state() == before
    wait_for(lambda: len(state.instances) == 1 and not state.is_changing, 60)
    incomplete = "find /srv/sample/releases -mindepth 1 -maxdepth 1 -name '.*'"
    assert not state.host.check_output(incomplete)
