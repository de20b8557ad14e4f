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


def test_figures_of_both_debians_are_there_beside_plain_ones():
    table = PAGE.partition("<!-- figures -->")[2].partition("<!-- /figures -->")[0]
    for column in ("Debian 12, Flaskstack", "Debian 12, plain", "Debian 13, Flaskstack"):
        assert column in table
    assert re.search(r"\| lynis[^|]* \| \d\d \| \d\d \| \d\d \| \d\d \|", table)
