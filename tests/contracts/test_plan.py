"""The plan and the roles use the same variables."""

import re

import pytest

from helpers import repository
from helpers.plans import host, planned
from helpers.repository import ROLES
from plan_inputs import INPUTS, NUMBERS
from plan_tables import SIZES, TIMEOUTS
from plan_timeouts import timeouts

PLAN = planned(one=host())["one"]["plan"]
DEFAULT = re.compile(r"\{\{ plan\.(\w+) \| default\('?(\w+)'?\) \}\}")
PLANNED = {
    name: value
    for role in ROLES
    for name, value in repository.defaults(role).items()
    if isinstance(value, str) and re.search(r"\bplan\b", value)
}
# Planned settings that are not numbers.
WORDS = {"mysql_performance_schema", "release_strategy"}


@pytest.mark.parametrize("name", sorted(PLANNED))
def test_default_reads_its_own_name_from_the_plan(name):
    match = DEFAULT.fullmatch(PLANNED[name])
    assert match, f"{name}: write {{{{ plan.{name} | default(…) }}}}"
    assert match[1] == name
    assert name in PLAN


@pytest.mark.parametrize("name", sorted(timeouts(30).keys() & PLANNED.keys()))
def test_defaults_without_a_plan_are_the_usual_timeouts(name):
    assert int(DEFAULT.fullmatch(PLANNED[name])[2]) == timeouts(30)[name]


def test_every_planned_value_is_a_role_setting():
    # A deploy does not plan. It reads release_strategy from the unit that site.yml wrote.
    assert set(PLAN) - set(INPUTS) == set(PLANNED) | {"release_strategy"}


def test_every_planned_value_may_be_set():
    assert set(PLAN) | set(INPUTS) == set(NUMBERS) | WORDS


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_argument_spec_of_a_planned_number_is_int(name):
    options = {key: option for role in ROLES for key, option in repository.options(role).items()}
    assert options[name]["type"] == "int"


def test_tables_show_every_planned_setting():
    shown = {name for _text, name, _tier in (*TIMEOUTS, *SIZES)}
    assert shown == set(PLAN) | set(INPUTS)


@pytest.mark.parametrize("usual", NUMBERS.values(), ids=NUMBERS)
def test_usual_value_is_in_its_range(usual):
    low, high, example, _unit = usual
    assert low <= example <= high


@pytest.mark.parametrize(("service", "role"), [("database", "mysql"), ("nginx", "nginx")])
def test_page_has_the_limits_that_no_plan_changes(service, role):
    folder = repository.ROOT / f"roles/{role}/files/etc/systemd/system/{role}.service.d"
    text = (folder / "flaskstack.conf").read_text()
    limits = dict(re.findall(r"^(MemoryHigh|MemoryMax|OOMScoreAdjust)=(.+)$", text, re.MULTILINE))
    share, score = limits["MemoryMax"].rstrip("%"), limits["OOMScoreAdjust"]
    page = (repository.ROOT / "docs/plan.md").read_text()
    assert f"| {service} | {share} % of the memory | {score} |" in page
    assert int(share) - 5 == int(limits["MemoryHigh"].rstrip("%"))
