"""Task names begin with plain verbs, and metaphors do not return."""

import re
import subprocess

import pytest

from helpers import repository
from helpers.repository import ROOT

# Use the terms in CONTRIBUTING.md instead.
WORDS = ("elders", "for the sake", "strays?", "twin", "what is wanted")
OPENERS = re.compile(
    r"(Ask|Ban|Bring|Forget|Give|Have|Keep|Learn|Leave|Let|Look|Make|Note|Prove|Refuse|Say|See|Tell)\b"
)
# Roles with plain names. Extend this list as other roles follow.
ROLES = ("app", "firewall", "gunicorn", "lockout_guard", "packages", "release")
PLAYBOOKS = set(ROOT.glob("playbooks/*.yml")) - {
    ROOT / "playbooks/rollback.yml",
    ROOT / "playbooks/rotate_secrets.yml",
}
TRACKED = subprocess.run(
    ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split("\0")
TEXTS = [
    ROOT / name
    for name in TRACKED
    if re.search(r"\.(j2|md|py|ya?ml)$", name)
    and not (ROOT / name).is_symlink()
    and name != "tests/contracts/test_language.py"
]


@pytest.mark.parametrize("word", WORDS)
def test_metaphors_are_not_used(word):
    pattern = re.compile(rf"\b{word}\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in TEXTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def names(value):
    """Yield the names of plays, tasks and handlers."""
    if isinstance(value, list):
        for item in value:
            yield from names(item)
    elif isinstance(value, dict):
        yield from [value["name"]] if isinstance(value.get("name"), str) else []
        for key in ("tasks", "handlers", "block", "rescue", "always"):
            yield from names(value.get(key))


@pytest.mark.parametrize(
    "path",
    sorted(PLAYBOOKS)
    + [path for role in ROLES for path in repository.yaml_files(role, "tasks", "handlers")],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_task_names_begin_with_a_plain_verb(path):
    assert [name for name in names(repository.load(path)) if OPENERS.match(name)] == []
