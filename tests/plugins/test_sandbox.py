"""Sandbox options and exceptions as lines of a unit. An exception needs a reason."""

import pytest

from sandbox import sandbox_exceptions, sandbox_options, unjustified


def test_options_become_lines_of_a_unit():
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


def test_reason_of_an_exception_is_one_line():
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
def test_unjustified_exception(exception):
    assert unjustified({"PrivateTmp": exception}) == ["PrivateTmp"]


@pytest.mark.parametrize("name", ["private_tmp", "PrivateTmp=no\nUser", "", 1])
def test_invalid_option_name(name):
    assert unjustified({name: GOOD}) == [name]


def test_justified_exception():
    assert unjustified({"PrivateTmp": GOOD, "SystemCallFilter": GOOD | {"value": ["@pkey"]}}) == []
