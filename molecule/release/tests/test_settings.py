"""Settings are activated like releases: verified before the switch, together with the code."""

from __future__ import annotations

import pytest

from helpers.clients import live_web, main_pid

SITE = ("site.yml", "--skip-tags", "access")
NOWHERE = "mysql+pymysql://nobody:nothing@127.0.0.1:1/sample"

# Skip the other tiers: for another worker class MySQL gets other sizes, and restarts.
SETTINGS = ("preflight release",)

# The playbook options, the settings, and the expected message apart from the active release.
WRONG = {
    "target": (SITE, {"app_wsgi": "sample_app.web:nowhere"}, ["app_wsgi", "nowhere"]),
    "worker class": (
        SETTINGS,
        {"gunicorn_worker_class": "gevent"},
        ["gevent", "app_extra_requirements"],
    ),
    "database": (SITE, {"DATABASE_URL": NOWHERE}, ["GET /readyz: 503", '"down"']),
    "target and a build that fails": (
        SETTINGS,
        {
            "app_wsgi": "sample_app.web:nowhere",
            "app_build_commands": ["echo no such bundler >&2; exit 3"],
        },
        ["no such bundler"],
    ),
}


class InUse:
    """The settings of running processes."""

    def __init__(self, host):
        """Use testinfra's `host`."""
        self.host = host

    def __call__(self, name):
        """Return a variable of the web server and of the background process."""
        units = (live_web(self.host, "sample"), "sample-worker@1.service")
        return tuple(self.variable(name, main_pid(self.host, unit)) for unit in units)

    def variable(self, name, pid):
        """Return a variable of a process; empty if unset."""
        lines = self.host.check_output("tr '\\0' '\\n' </proc/%s/environ", str(pid)).splitlines()
        return next((line.partition("=")[2] for line in lines if line.startswith(f"{name}=")), "")


@pytest.fixture
def in_use(host):
    """Return a function that reads a variable of the app's processes."""
    return InUse(host)


@pytest.fixture
def set_to(host):
    """Return a function that adds variables to the app's environment in the inventory."""
    known = host.ansible.get_variables().get("app_environment", {})
    return lambda **more: {"app_environment": known | more}


@pytest.fixture
def served(operator, version, home, served_once, served_state):
    """Return the variables that name the active release, so that only settings change."""
    if not served_once:
        served_once["app_source_folder"] = str(version())
    # Nothing to restore after a test that changed nothing.
    if served_state.get("home") != home():
        done = operator.play(*SITE, **served_once)
        assert done.code == 0, done.output
        served_state["home"] = home()
    return served_once


@pytest.fixture(scope="module")
def served_once():
    """Keep the variables of the active release for the module."""
    return {}


@pytest.fixture(scope="module")
def served_state():
    """Keep the state of the host with these variables for the module."""
    return {}


@pytest.mark.parametrize("wrong", WRONG)
def test_failing_settings_change_nothing(wrong, under_load, operator, home, served, set_to):
    playbook, variables, words = WRONG[wrong]
    if "DATABASE_URL" in variables:
        variables = set_to(**variables)
    before, serves = home(), home.release
    with under_load(f"wrong {wrong}") as load:
        done = operator.play(*playbook, **served, **variables, release_health_timeout=10)
    assert done.code != 0, done.output
    for sentence in [*words, f"{serves} is active on site"]:
        assert done.says(sentence), f"{sentence!r} is not in:\n{done.output}"
    assert {answer.release for answer in load.answers if answer.release} == {serves}
    assert home() == before


def test_settings_and_code_change_and_roll_back_together(
    under_load, operator, version, home, served, set_to, in_use
):
    first, other = home.release, version()
    with under_load("settings, both, a rollback of each", share=0.2):
        done = operator.play(*SITE, **served, **set_to(GREETING="one"))
        assert done.code == 0, done.output
        assert (home.release, in_use("GREETING")) == (first, ("one", "one"))
        both = {"app_source_folder": str(other)} | set_to(GREETING="two")
        done = operator.play(*SITE, **both)
        assert done.code == 0, done.output
        second = home.release
        assert second != first
        assert in_use("GREETING") == ("two", "two")
        for release, greeting in ((first, "one"), (first, "")):
            done = operator.play("rollback")
            assert done.code == 0, done.output
            assert (home.release, in_use("GREETING")) == (release, (greeting, greeting))


def test_a_deploy_reports_different_settings_in_the_inventory(
    operator, version, home, served, set_to, in_use
):
    done = operator.deploy(version(), **set_to(GREETING="later"))
    assert done.code == 0, done.output
    assert done.says("settings differ from the active ones of site")
    assert done.says("GREETING")
    assert home.release != served
    assert in_use("GREETING") == ("", "")


def test_failing_settings_are_reverted_when_memory_is_scarce(
    operator, home, site, served, set_to, in_use
):
    scarce = {"release_strategy": "restart", "release_health_timeout": 10}
    release, before = home.release, in_use("DATABASE_URL")
    done = operator.play(*SITE, **served, **set_to(DATABASE_URL=NOWHERE), **scarce)
    assert done.code != 0, done.output
    assert done.says("GET /readyz: 503")
    assert site.get("/").status_code == 200
    assert (home.release, in_use("DATABASE_URL")) == (release, before)
