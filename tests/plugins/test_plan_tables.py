"""The plan is printed as tables."""

import pytest

from helpers.plans import host, planned
from plan_tables import plan_tables


def tables(**site):
    return plan_tables(planned(**site)).split("\n\nBudget")


def words(table):
    return [" ".join(line.split()) for line in table.splitlines()]


def test_row_has_setting_variable_and_value():
    clock, budget = tables(one=host(460, 1, request_timeout=60))
    assert "statement mysql_statement_timeout 45" in words(clock)
    assert "memory, MiB host_memory 460" in words(budget)
    assert "swap, MiB base_swap_size 1024" in words(budget)
    assert "Gunicorn workers gunicorn_workers 1" in words(budget)
    assert "release strategy release_strategy restart" in words(budget)


def test_sum_and_rest_match_the_parts():
    _clock, budget = tables(db=host(7940, 4, ["database"]))
    cells = {
        line.rsplit(" ", 1)[0]: line.rsplit(" ", 1)[1] for line in words(budget) if " " in line
    }
    parts = [int(value) for name, value in cells.items() if name.endswith("may hold, MiB")]
    assert len(parts) == 4
    assert sum(parts) == int(cells["all of it, MiB"])
    assert sum(parts) + int(cells["left for page cache and deploys, MiB"]) == 7940


def test_column_shows_only_the_tiers_of_its_host():
    clock, budget = tables(web=host(960, 1, ["edge"]), db=host(7940, 4, ["database"]))
    assert words(clock)[0] == "Timeouts, seconds variable web db"
    assert "response to nginx nginx_proxy_read_timeout 35" in words(clock)
    assert "Gunicorn workers gunicorn_workers" in words(budget)
    assert "web workers may hold, MiB" not in budget


@pytest.mark.parametrize("given", [{}, {"gunicorn_worker_class": "gevent"}], ids=str)
def test_streams_that_occupy_threads_are_noted(given):
    text = plan_tables(planned(one=host(streams=["/events"], **given)))
    note = "\n\nNote: 12 visitors of /events hold all threads, and others wait."
    assert (note in text) is (given == {})
    assert "Note" not in plan_tables(planned(one=host()))


def test_columns_are_aligned():
    clock, _budget = tables(web=host(), **{"a-long-name.example": host()})
    lines = clock.splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len({line.index("_") for line in lines[1:]}) > 1
    assert all(line[lines[0].index("variable") - 1] == " " for line in lines)
