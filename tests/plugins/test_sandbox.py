"""Options become lines of a unit; an exception has its reason above it."""

import pytest

from sandbox import sandbox_exceptions, sandbox_options, unjustified


def test_options_are_lines():
    options = {"PrivateTmp": True, "NoNewPrivileges": False, "UMask": "0027", "Empty": ""}
    options["SystemCallFilter"] = ["@system-service", "~@privileged"]
    assert sandbox_options(options).splitlines() == [
        "PrivateTmp=yes",
        "NoNewPrivileges=no",
        "UMask=0027",
        "Empty=",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged",
    ]


def test_an_exception_says_why_on_one_line():
    exceptions = {"UMask": {"value": "0077", "reason": "files of\nUser=root  nobody else"}}
    assert sandbox_exceptions(exceptions) == "# files of User=root nobody else\nUMask=0077"


GOOD = {"value": False, "reason": "makes machine code"}


@pytest.mark.parametrize(
    "exception",
    [
        *(False, None, "no", {}, {"value": False}, {"reason": "makes machine code"}),
        *(GOOD | {"reason": reason} for reason in (None, "", "   ", "because")),
        *(GOOD | {"value": value} for value in ("a\nUser=root", ["a", "b\nUser=root"])),
    ],
)
def test_an_exception_that_is_not_justified(exception):
    assert unjustified({"PrivateTmp": exception}) == ["PrivateTmp"]


@pytest.mark.parametrize("name", ["private_tmp", "PrivateTmp=no\nUser", "", 1])
def test_a_name_that_is_no_option(name):
    assert unjustified({name: GOOD}) == [name]


def test_one_that_is():
    assert unjustified({"PrivateTmp": GOOD, "SystemCallFilter": GOOD | {"value": ["@pkey"]}}) == []
