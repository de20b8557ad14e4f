"""docs/audits.md has the reason for each skipped test and the results of the audits."""

import re

import pytest

from helpers import audits
from helpers.repository import ROOT

PAGE = (ROOT / "docs/audits.md").read_text()


@pytest.mark.parametrize("test", audits.LYNIS_SKIPPED)
def test_each_skipped_lynis_test_has_a_reason(test):
    (reason,) = re.findall(rf"^\|[^|]*\b{test} \*[^|]*\|[^|]+\|([^|]+)\|", PAGE, re.MULTILINE)
    assert len(reason) > 20


def test_page_has_one_pair_of_figures_markers():
    assert PAGE.count("<!-- figures -->\n") == PAGE.count("<!-- /figures -->\n") == 1
