"""docs/audits.md gives reasons for what the audits leave out, and holds their figures."""

import re

import pytest

from helpers import audits
from helpers.repository import ROOT

PAGE = (ROOT / "docs/audits.md").read_text()


@pytest.mark.parametrize("test", audits.LYNIS_SKIPPED)
def test_each_skipped_test_of_lynis_has_a_reason(test):
    (reason,) = re.findall(rf"^\|[^|]*\b{test} \*[^|]*\|[^|]+\|([^|]+)\|", PAGE, re.MULTILINE)
    assert len(reason) > 20


def test_the_figures_have_one_place():
    assert PAGE.count("<!-- figures -->\n") == PAGE.count("<!-- /figures -->\n") == 1
