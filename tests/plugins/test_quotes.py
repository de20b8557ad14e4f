"""Programs read quoted values from files unchanged.

In scenario gunicorn, systemd reads units with the same hostile values.
"""

import ast
import shlex
import subprocess

import pytest
from ansible.errors import AnsibleFilterError

from quotes import (
    environment_file,
    mysql_option,
    nginx_string,
    not_commands,
    not_environment,
    not_lines,
    python_literal,
    systemd_command,
    systemd_environment,
)

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
    "LETTERS": "grüße € 😀",
    "DASH": "-n --",
}
EXPECTED = VALUES | {"NOTHING": "", "NUMBER": "30", "YES": "true"}


def test_shell_reads_the_same_values(tmp_path):
    path = tmp_path / "environment"
    path.write_text(environment_file(VALUES) + "\n")
    command = ["sh", "-c", 'set -a; . "$1"; exec env -0', "sh", str(path)]
    output = subprocess.run(command, env={}, capture_output=True, check=True).stdout.decode()
    read = dict(line.split("=", 1) for line in output.split("\0") if line)
    assert {name: read[name] for name in EXPECTED} == EXPECTED


FORMATS = [
    lambda value: environment_file({"SECRET": value}),
    lambda value: systemd_environment({"SECRET": value}),
    systemd_command,
    nginx_string,
    mysql_option,
]


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("value", ["two\nlines", "return\r", "nul\0", "escape\x1b", "half \ud83d"])
def test_invalid_text_is_rejected_and_not_shown(write, value):
    with pytest.raises(AnsibleFilterError, match=r"holds (a newline|half of a)") as error:
        write(value)
    assert value not in str(error.value)


HOSTILE = [
    "",
    "a b",
    "\t",
    'it\'s "q"',
    "\\",
    "\\n",
    "50%",
    "%n",
    "é 😀",
    "-x",
    "#",
    ";",
    "{",
    "~",
    "a=b",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_other_formats_keep_the_value(value):
    """These formats use double quotes, backslashes before quotes and backslashes, and %% for %."""
    (line,) = systemd_environment({"A": value}).splitlines()
    quoted = line.removeprefix("Environment=").replace("\\t", "\t")
    assert shlex.split(quoted) == [f"A={value.replace('%', '%%')}"]
    assert shlex.split(nginx_string(value)) == [value]
    option = mysql_option(value, "name").removeprefix("name = ").replace("\\t", "\t")
    assert shlex.split(option) == [value]
    command = f"x {shlex.quote(value)} y"
    words = systemd_command(command).replace("\\t", "\t")
    assert shlex.split(words) == ["x", value.replace("%", "%%"), "y"]
    assert words.startswith("x ")
    assert ast.literal_eval(python_literal({"a": [value, True, None, 1.5]})) == {
        "a": [value, True, None, 1.5]
    }


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("rq worker --job 50% $QUEUE_URL", "rq worker --job 50%% $QUEUE_URL"),
        ("x ${A}/b '$5' $$ 'a $b'", 'x "${A}/b" $$5 $$ "a $b"'),
        ("sh -c 'a; b \"c\"'", 'sh -c "a; b \\"c\\""'),
        ("x ; y", 'x ";" y'),
    ],
)
def test_systemd_command_is_escaped(command, words):
    assert systemd_command(command) == words


def test_dollar_in_an_nginx_string_is_rejected():
    with pytest.raises(AnsibleFilterError, match=r"contains a \$"):
        nginx_string("$host")


@pytest.mark.parametrize(
    ("value", "line"),
    [(None, "a"), (True, "a = ON"), (7, "a = 7"), ("'x y'", 'a = "x y"'), ("x # y", 'a = "x # y"')],
)
def test_mysql_options(value, line):
    assert mysql_option(value, "a") == line


@pytest.mark.parametrize("command", ["x", "x\n", "sh -c 'a; b'", 'x "a b"', "x 50% ä"])
def test_command_on_one_line_is_accepted(command):
    assert not_commands([{"name": "worker", "command": command}]) == []


@pytest.mark.parametrize(
    "command", ["", " ", "x\n--all", "x\rUser=root", "x 'a", 'x "', "x \\", "x\ud83d"]
)
def test_process_with_an_invalid_command_is_named(command):
    commands = [{"name": "worker", "command": "x"}, {"name": "nightly", "command": command}]
    assert not_commands(commands) == ["nightly"]


def test_value_that_is_not_one_line_is_named():
    assert not_lines({"a": "x", "b": "x\ny", "c": [1], "d": None}) == ["b", "c"]


@pytest.mark.parametrize("name", ["", "1ST", "WITH-DASH", "A B", "A=B", "A\n", "É"])
def test_invalid_variable_names_are_rejected(name):
    with pytest.raises(AnsibleFilterError, match="cannot name an environment variable"):
        environment_file({name: "x"})


@pytest.mark.parametrize("value", [["a"], {"a": 1}])
def test_lists_and_dictionaries_are_rejected(value):
    with pytest.raises(AnsibleFilterError, match="NAME is a"):
        environment_file({"NAME": value})


def test_variables_that_no_environment_file_can_hold_are_named():
    variables = {"GOOD": "x", "NUMBER": 1, "NONE": None, "A-B": "x", "LINES": "a\nb", "LIST": [1]}
    items = [{"key": name, "value": value} for name, value in variables.items()]
    assert not_environment(items) == ["A-B", "LINES", "LIST"]
