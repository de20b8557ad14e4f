"""A failed deploy leaves the previous release active, reports why, and removes its files."""

from __future__ import annotations

import time

import pytest

from helpers.repository import ROOT
from helpers.wait import wait_for

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
# Prints the secret key, which messages must not show.
STARTS_NOT = """import os
print(os.environ["SECRET_KEY"], flush=True)
import not_there
from flask import Flask
"""
DIES = """import os, threading
    threading.Timer(5, lambda: (print("had enough", flush=True), os._exit(3))).start()
    app = Flask(__name__)"""

# The change to the app, the settings, and the expected message apart from the active release.
FAILURES = {
    "build": (
        (),
        {"app_build_commands": ["echo no such bundler >&2; exit 3"]},
        ["app_build_commands: ", "no such bundler"],
    ),
    "dependencies": (
        ("requirements.lock", "\nalembic==", "\nalembic==99."),
        {},
        ["Install the Python environment", "there is no version of alembic==99"],
    ),
    "interpreter": (
        ("pyproject.toml", ">=3.11", ">=4"),
        {},
        ["app_python is python3: is 3.13.", "on site, but", 'requires-python = ">=4"'],
    ),
    "migration": (
        (f"{VERSIONS}/9999_broken.py", "", MIGRATION),
        {},
        ["alembic upgrade head", "a_table_from_nowhere"],
    ),
    "dies at start": (
        (FACTORY, "from flask import Flask\n", STARTS_NOT),
        {"release_health_timeout": 300},
        [
            "Gunicorn cannot import it",
            "ModuleNotFoundError: No module named 'not_there'",
            "app_extra_requirements: [not_there]",
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


# The task in which the connection breaks, the state of the host by then, whether the processes on
# the host are killed too, and the next deploy.
MOMENTS = {
    "as it is placed": ("Install the release", lambda home, before: True, False, "the same"),
    "as it starts": (
        "Start the release beside the active one",
        lambda home, before: len(home.instances) == 2,
        True,
        "never healthy",
    ),
    "when it has started": (
        "Switch traffic to the release",
        lambda home, before: True,
        False,
        "another",
    ),
    "when it has switched": (
        "Switch traffic to the release",
        lambda home, before: home.release != before,
        True,
        "dies at start",
    ),
}
AFTER_A_CUT = [then for *_, then in MOMENTS.values()]


@pytest.fixture
def fails(operator, version):
    """Return a function that runs a failing deploy and checks its message."""

    def fails(failure, serves, hidden):
        change, variables, words = FAILURES[failure]
        began = time.monotonic()
        done = operator.deploy(version(*change), **variables)
        assert done.code != 0, done.output
        assert time.monotonic() - began < 120, "it was waited for"
        # These failures are found before a host is contacted.
        words = words if failure == "interpreter" else [*words, serves]
        for sentence in words:
            assert done.says(sentence), f"{sentence!r} is not in:\n{done.output}"
        assert len(hidden) > 30
        assert hidden not in done.output

    return fails


@pytest.fixture
def secret(host):
    """Return the app's secret key."""
    line = host.check_output("grep '^SECRET_KEY=' /etc/sample/current/environment")
    return line.partition("=")[2].strip("'\"")


@pytest.mark.parametrize("failure", [name for name in FAILURES if name not in AFTER_A_CUT])
def test_a_failed_deploy_changes_nothing(failure, under_load, fails, home, secret):
    before, serves = home(), home.release
    with under_load(failure) as load:
        fails(failure, serves, secret)
    # Background processes restart after the switch, so this failure is found later.
    late = failure == "process dies at start"
    answered = [answer.release for answer in load.answers if answer.release]
    assert set(answered) == {serves} or (late and answered[-1] == serves), set(answered)
    assert home() == before
    assert home.worker == serves


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_next_deploy_cleans_up_after_an_interrupted_one(
    moment, under_load, operator, version, fails, home, secret
):
    task, come, ends, then = MOMENTS[moment]
    before, served, source = home(), home.release, version()
    with under_load(f"cut {moment}") as load:
        operator.cut(source, task, lambda: come(home, served), release_watch=3)
        if ends:
            home.end_what_deploys()
        cut = home.release
        if then in FAILURES:
            fails(then, cut, secret)
        else:
            done = operator.deploy(source if then == "the same" else version())
            assert done.code == 0, done.output
            assert home.release != served
    if then in FAILURES:
        answered = [answer.release for answer in load.answers if answer.release]
        assert set(answered) <= {served, cut}
        assert answered[-1] == home.release == home.last["release"] == cut
    if then in FAILURES and cut == served:
        assert home() == before
    wait_for(lambda: len(home.instances) == 1 and not home.under_way, 60)
    half = "find /srv/sample/releases -mindepth 1 -maxdepth 1 -name '.*'"
    assert not home.host.check_output(half)
