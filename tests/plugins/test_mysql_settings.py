"""Settings of a running server, and of a server that another app owns."""

from __future__ import annotations

import pytest

from helpers.imports import import_role_file

live = import_role_file("mysql/library/mysql_live_settings.py")

FILE = """# Ansible managed
[mysqld]
max-connections = 100
wait_timeout = 3600
max_allowed_packet = 64M
max_allowed_packet = 80M
loose_new_variable = "ON"

[client]
wait_timeout = 5
"""


def test_option_file_is_parsed():
    assert live.read(FILE) == {
        "max_connections": "100",
        "wait_timeout": "3600",
        "max_allowed_packet": "80M",
        "new_variable": "ON",
    }


@pytest.mark.parametrize(
    ("text", "value"), [("64M", 64 << 20), ("1g", 1 << 30), ("0.5", 0.5), ("ON", None)]
)
def test_numbers_with_units_are_parsed(text, value):
    assert live.number(text) == value


def test_only_lower_settings_are_raised():
    text = live.raised(
        FILE, {"max_connections": 130, "wait_timeout": 60, "max_allowed_packet": "202M"}
    )
    assert live.read(text) == live.read(FILE) | {
        "max_connections": "130",
        "max_allowed_packet": "202M",
    }
    assert "[client]\nwait_timeout = 5" in text
    assert live.raised(text, {"max_connections": 130, "unknown": 5}) == text
