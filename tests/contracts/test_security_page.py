"""docs/security.md says what the audits leave out, and what they found."""

import re

import pytest

import audits
from repository import ROOT

PAGE = (ROOT / "docs/security.md").read_text()


@pytest.mark.parametrize("test", audits.LYNIS_SKIPPED)
def test_what_lynis_is_not_asked_has_its_reason(test):
    (row,) = re.findall(rf"^\|[^|]*\b{test} \*[^|]*\|[^|]+\|([^|]+)\|", PAGE, re.MULTILINE)
    assert len(row) > 20


@pytest.mark.parametrize("marker", ["figures", "attacks"])
def test_there_is_a_place_for_each_table_of_the_bench(marker):
    assert PAGE.count(f"<!-- {marker} -->\n") == PAGE.count(f"<!-- /{marker} -->\n") == 1
