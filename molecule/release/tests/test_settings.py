"""Settings are activated like releases: verified before the switch, together with the code."""

from __future__ import annotations

import pytest

from helpers.clients import live_web, main_pid

SITE = ("site.yml", "--skip-tags", "access")
SETTINGS = ("preflight release",)  # site.yml without the other tiers
UNREACHABLE = "mysql+pymysql://nobody:nothing@127.0.0.1:1/sample"


@pytest.fixture
def in_use(host):
    """Return a function that reads a variable of the web server and of the background process."""

    def value(name, unit):
        command = "tr '\\0' '\\n' </proc/%s/environ"
        lines = host.check_output(command, str(main_pid(host, unit))).splitlines()
        return next((line.partition("=")[2] for line in lines if line.startswith(f"{name}=")), "")

    def in_use(name):
        return value(name, live_web(host, "sample")), value(name, "sample-worker@1.service")

    return in_use


@pytest.fixture(scope="module")
def app_environment(host):
    """Return a function that adds variables to the app's environment in the inventory."""
    known = host.ansible.get_variables().get("app_environment", {})
    return lambda **more: {"app_environment": known | more}


@pytest.fixture(scope="module")
def deployed(operator, version, app_environment):
    """Deploy a version with settings that deploy.yml does not apply; return source and result."""
    source = version()
    done = operator.deploy(source, **app_environment(GREETING="later"))
    assert done.code == 0, done.output
    return {"app_source_folder": str(source)}, done


@pytest.fixture
def source(deployed):
    """Return the variable that names the active release, so that only settings change."""
    return deployed[0]


def test_a_deploy_reports_different_settings_in_the_inventory(deployed, in_use):
    assert deployed[1].says("settings differ from the active ones of site")
    assert deployed[1].says("GREETING")
    assert in_use("GREETING") == ("", "")


@pytest.mark.parametrize(
    ("playbook", "variables", "words"),
    [
        (
            SETTINGS,
            {"gunicorn_worker_class": "gevent"},
            ["gevent", "app_extra_requirements"],
        ),
        (SITE, {"DATABASE_URL": UNREACHABLE}, ["GET /readyz: 503", '"down"']),
    ],
    ids=["worker class", "database"],
)
def test_failing_settings_change_nothing(
    playbook, variables, words, under_load, operator, state, source, app_environment
):
    if "DATABASE_URL" in variables:
        variables = app_environment(**variables)
    before, active = state(), state.release
    with under_load(f"failing {next(iter(variables))}") as load:
        done = operator.play(*playbook, **source, **variables, release_health_timeout=10)
    assert done.code != 0, done.output
    for sentence in [*words, f"{active} is active on site"]:
        assert done.says(sentence), f"{sentence!r} is not in:\n{done.output}"
    assert {answer.release for answer in load.answers if answer.release} == {active}
    assert state() == before


def test_settings_and_code_change_and_roll_back_together(
    under_load, operator, version, state, source, app_environment, in_use
):
    first, other = state.release, {"app_source_folder": str(version())}
    with under_load("settings, both, a rollback of each", share=0.2):
        for code, greeting in ((source, "one"), (other, "two")):
            done = operator.play(*SETTINGS, **code, **app_environment(GREETING=greeting))
            assert done.code == 0, done.output
            assert in_use("GREETING") == (greeting, greeting)
            assert (state.release == first) is (code is source)
        for greeting in ("one", ""):
            done = operator.play("rollback")
            assert done.code == 0, done.output
            assert (state.release, in_use("GREETING")) == (first, (greeting, greeting))


def test_failing_settings_are_reverted_when_memory_is_scarce(
    operator, state, site, source, app_environment, in_use
):
    scarce = {"release_strategy": "restart", "release_health_timeout": 10}
    release, before = state.release, in_use("DATABASE_URL")
    failing = app_environment(DATABASE_URL=UNREACHABLE)
    done = operator.play(*SETTINGS, **source, **failing, **scarce)
    assert done.code != 0, done.output
    assert done.says("GET /readyz: 503")
    assert site.get("/").status_code == 200
    assert (state.release, in_use("DATABASE_URL")) == (release, before)
