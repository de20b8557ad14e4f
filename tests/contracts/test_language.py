"""Names of tasks begin with the verbs of CONTRIBUTING.md, and texts have no unclear words."""

import io
import re
import subprocess
import tokenize

from helpers import repository
from helpers.repository import ROOT

# Use the terms in CONTRIBUTING.md instead.
WORDS = re.compile(
    r"\b(anew|by itself|comes? to no|elders?|for (its|the) sake|hardly|in hand|loot|mended"
    r"|next door|nobody (here|knows|who)|of before|persons|sees? to|strays?"
    r"|tells? (how|more|what|which|why)|thief|treasure|told by|twins?|vouch\w*"
    r"|what is wanted|whoever)\b",
    re.IGNORECASE,
)
PROSE = {"COMMENT", "STRING", "FSTRING_MIDDLE"}
LISTED = re.search(
    r"one of these verbs: (.*?)\.", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
)
VERBS = set(re.findall("[A-Z][a-z]+", LISTED[1]))
TRACKED = subprocess.run(
    ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split("\0")
TEXTS = [
    ROOT / name
    for name in TRACKED
    if re.search(r"\.(j2|md|py|sh|ya?ml)$", name)
    and not (ROOT / name).is_symlink()
    and name != "tests/contracts/test_language.py"
]
TASKS = [
    path
    for path in TEXTS
    if path.suffix == ".yml"
    and re.search("^(roles|playbooks|molecule|docs|site)", str(path.relative_to(ROOT)))
]


def prose(path):
    """Yield the numbered lines of a file; of Python only comments, docstrings and messages."""
    if path.suffix != ".py":
        yield from enumerate(path.read_text().splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if tokenize.tok_name[token.type] in PROSE:
            yield from enumerate(token.string.splitlines(), token.start[0])


def names(value):
    """Yield the names of plays, tasks and handlers."""
    for item in value if isinstance(value, list) else []:
        if isinstance(item, dict):
            yield from [item["name"]] if "name" in item else []
            for key in (
                "tasks",
                "handlers",
                "pre_tasks",
                "post_tasks",
                "block",
                "rescue",
                "always",
            ):
                yield from names(item.get(key))


def test_no_text_has_an_unclear_word():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in prose(path)
        if WORDS.search(line)
    ]
    assert not found, "\n".join(found)


def test_names_begin_with_a_plain_verb():
    assert len(VERBS) > 30
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in TASKS
        for name in names(repository.load(path))
        if re.match(r"\w*", name)[0] not in VERBS
    ]
    assert not found, "\n".join(found)
