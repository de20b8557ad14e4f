"""A command runs like the app does, with the settings of its release."""

from __future__ import annotations

import sys

import pytest

from flaskstack.errors import DeployError, ValidationError
from flaskstack.run import check, output_of
from flaskstack.settings import Settings

SHOWN = 'echo "$PWD|${PATH%:/usr/local*}|$SET|$ASSETS"; exit 7'
# The parts of Gunicorn that the check uses.
GUNICORN = """
import importlib, runpy, sys

class WSGIApplication:
    def __init__(self):
        self.settings = runpy.run_path(sys.argv[sys.argv.index("--config") + 1])
        self.cfg = self
    @property
    def worker_class(self):
        assert self.settings["worker_class"] == "gthread", "class uri invalid"
    def load(self):
        sys.path.insert(0, "")
        importlib.import_module(self.settings["wsgi_app"])
"""


def run(root, script, *words, **options):
    code, output = output_of("shop", root, ["sh", "-c", script, *words], **options)
    return code, output.removesuffix("\n")


def test_a_new_release_has_its_own_settings(root, write_settings, tools):
    folder, new = root / "releases/two", write_settings("second")
    (folder / ".release.env").write_text("ASSETS=7\n")
    search = f"{folder}/.venv/bin:{folder}/.site-packages/bin"
    expected = (7, f"{folder}|{search}|second|7")
    assert run(root, SHOWN, release="two", settings=new) == expected
    started = (tools / "started").read_text().splitlines()
    assert "--property=Slice=shop%1.slice" in started
    assert not [option for option in started if "current" in option or "# confined" in option]


def test_the_default_is_the_active_release(root):
    assert run(root, SHOWN)[1].startswith(f"{root}/releases/one|")
    assert run(root, 'echo "$SET"') == (0, "first")


@pytest.mark.parametrize("value", ["mysql://a b", 'a "b" \\ `c` $HOME #', "x=y"])
def test_variables_and_arguments_are_passed_unchanged(root, tools, value):
    expected = (0, f"{value}|{value}|$$")
    script = 'printf "%s|%s|%s" "$URL" "$1" \'$$\''
    assert run(root, script, "sh", value, environment=f"URL={value}\n") == expected
    assert "URL=" not in (tools / "started").read_text()


def test_a_missing_release_is_rejected(root, write_settings):
    for options in ({"release": "three"}, {"settings": "gone"}):
        with pytest.raises(ValidationError, match=r"has no (three|settings) on this host"):
            run(root, "true", **options)
    Settings("shop").use("")
    with pytest.raises(ValidationError, match="has no settings"):
        run(root, "true")


@pytest.fixture
def checked(root, write_settings):
    """Return a function that checks release `two` with a module and a worker class."""
    folder = root / "releases/two"
    (folder / ".venv/bin/python").symlink_to(sys.executable)
    (folder / "gunicorn/app").mkdir(parents=True)
    (folder / "gunicorn/app/wsgiapp.py").write_text(GUNICORN)

    def checked(text, worker="gthread"):
        (folder / "web.py").write_text(text)
        files = {"gunicorn.conf.py": f"wsgi_app = 'web'\nworker_class = {worker!r}\n"}
        name = write_settings("second", {"timeout": 1}, **files)
        return check({"app": "shop", "root": str(root), "release": "two", "settings": name})

    return checked


def test_an_importable_app_passes(checked):
    read = "import os\nassert os.environ['SET'] == 'second'\n"
    assert checked(read) == {"changed": False}


@pytest.mark.parametrize(
    "text",
    [
        "import sqlite3\nsqlite3.connect(':memory:').execute('select 1 from note')\n",
        "raise RuntimeError('(1142, \"CREATE command denied to user shop for table note\")')\n",
    ],
)
def test_missing_tables_are_accepted_before_the_migration(checked, text):
    assert checked(text) == {"changed": False}


@pytest.mark.parametrize(
    ("text", "worker", "reason"),
    [
        ("import os\nos.environ['STRIPE_KEY']\n", "gthread", "app_environment: {STRIPE_KEY"),
        ("app = 1\n", "gthred", "class uri invalid"),
        ("import threading\nthreading.Event().wait(20)\n", "gthread", "release_health_timeout"),
    ],
)
def test_an_app_that_cannot_start_is_rejected_with_the_reason(checked, text, worker, reason):
    with pytest.raises(DeployError, match=reason):
        checked(text, worker)
