"""What a value was is what a shell reads from the file; systemd follows the same rules."""

import subprocess

import pytest
from ansible.errors import AnsibleFilterError

from environment_file import environment_file, not_environment

VALUES = {
    "PLAIN": "value",
    "EMPTY": "",
    "NOTHING": None,
    "NUMBER": 30,
    "YES": True,
    "SPACES": "  two  words\t",
    "QUOTES": """it's "quoted" """,
    "SHELL": "$HOME `id` $(id) \\$x \\ \\\\ ! * ~ # ; & | < >",
    "PERCENT": "100%20 %n",
    "LETTERS": "grüße €",
}
EXPECTED = VALUES | {"NOTHING": "", "NUMBER": "30", "YES": "true"}


def test_a_shell_reads_the_same(tmp_path):
    path = tmp_path / "environment"
    path.write_text(environment_file(VALUES) + "\n")
    command = ["sh", "-c", 'set -a; . "$1"; exec env -0', "sh", str(path)]
    output = subprocess.run(command, env={}, capture_output=True, check=True).stdout.decode()
    read = dict(line.split("=", 1) for line in output.split("\0") if line)
    assert {name: read[name] for name in EXPECTED} == EXPECTED


@pytest.mark.parametrize("value", ["two\nlines", "return\r", "nul\0", "escape\x1b"])
def test_control_characters_are_refused_without_showing_the_value(value):
    with pytest.raises(AnsibleFilterError, match="SECRET holds a newline") as error:
        environment_file({"SECRET": value})
    assert value not in str(error.value)


@pytest.mark.parametrize("name", ["", "1ST", "WITH-DASH", "A B", "A=B", "A\n", "É"])
def test_names_that_no_shell_takes_are_refused(name):
    with pytest.raises(AnsibleFilterError, match="cannot name an environment variable"):
        environment_file({name: "x"})


@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_values_must_be_one_string(value):
    with pytest.raises(AnsibleFilterError, match="NAME is a"):
        environment_file({"NAME": value})


def test_what_no_file_can_hold_is_named():
    variables = {"GOOD": "x", "NUMBER": 1, "NONE": None, "A-B": "x", "LINES": "a\nb", "LIST": [1]}
    items = [{"key": name, "value": value} for name, value in variables.items()]
    assert not_environment(items) == ["A-B", "LINES", "LIST"]
