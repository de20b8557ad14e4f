"""Roles have the same structure, and their specs, defaults and READMEs agree."""

import re

import pytest

import document_roles
from helpers import repository
from helpers.repository import ROLES, ROOT
from plan_inputs import INPUTS

# Other roles depend on this role for its variables only, so it has no tasks/main.yml.
VARIABLES = "app"
# Other roles install packages through this role and read its registered variables.
INSTALLER = "packages"
RENAMED = repository.load("roles/app/vars/main.yml")["__app_renamed"]
# A release is activated together with its settings, so these roles use each other.
PARTNERS = {"gunicorn": {"release"}, "release": {"gunicorn"}}

pytestmark = pytest.mark.parametrize("role", ROLES)


def test_role_has_the_required_files(role):
    folder = ROOT / "roles" / role
    for name in ("README.md", "defaults/main.yml", "meta/argument_specs.yml"):
        assert (folder / name).is_file(), f"roles/{role} has no {name}"
    assert (folder / "tasks/main.yml").is_file() != (role == VARIABLES)
    for path in repository.yaml_files(role, "defaults", "handlers", "meta", "tasks", "vars"):
        assert path.read_text().startswith("---\n"), f"{path} must begin with ---"


def test_role_validates_before_it_installs_and_configures(role):
    """A role used alone needs this order. site.yml validates and installs once for all roles."""
    if not (ROOT / f"roles/{role}/tasks/provision.yml").is_file():
        return
    steps = [
        task.get("ansible.builtin.import_tasks") or task["ansible.builtin.import_role"]["name"]
        for task in repository.load(f"roles/{role}/tasks/main.yml")
    ]
    assert steps[0] == VARIABLES  # task file standalone.yml
    assert steps[steps.index("packages") + 1] == "provision.yml"


def test_defaults_are_options_and_only_in_the_defaults(role):
    options = repository.options(role)
    assert repository.defaults(role).keys() <= options.keys()
    assert [name for name, option in options.items() if "default" in option] == []


def test_options_are_described_and_typed(role):
    for name, option in every_option(repository.options(role)):
        assert option.get("description"), f"{name} has no description"
        assert option.get("type"), f"{name} has no type"
        assert option["type"] != "list" or option.get("elements"), f"{name} is a list of what?"
        assert not (option.get("required") and "default" in option), f"{name} is required"


def every_option(options):
    for name, option in options.items():
        yield name, option
        yield from every_option(option.get("options", {}))


def test_variables_begin_with_the_role_name(role):
    own = set(repository.options(role)) | set(repository.defaults(role))
    if role == "app":  # it also describes the inputs of the plan
        assert own >= set(INPUTS)
        own -= set(INPUTS)
    assert not {name for name in own if not name.startswith(f"{role}_")}
    for path in repository.yaml_files(role, "vars"):
        names = set(repository.load(path) or {}) - RENAMED.keys()
        assert not {name for name in names if not name.startswith(f"__{role}")}, path


def test_every_default_has_a_comment(role):
    lines = (ROOT / f"roles/{role}/defaults/main.yml").read_text().splitlines()
    for previous, line in zip(["", *lines], lines, strict=False):
        if re.match(rf"{role}_\w+:", line):
            assert " # " in line or previous.lstrip().startswith("#"), line


def test_used_variables_are_declared(role):
    """Otherwise a misspelt variable fails only when its branch runs."""
    known = {role, INSTALLER} | repository.dependencies(role) | PARTNERS.get(role, set())
    declared = set().union(*map(repository.options, known), *map(own_facts, known))
    declared |= {"__app_settings"}  # by action role_settings
    for path in readers(role):
        undeclared = of_a_role(repository.used_by(path)) - declared
        assert not undeclared, f"{path.relative_to(ROOT)} uses {sorted(undeclared)}"


def readers(role):
    """Return the files of a role that use variables."""
    folders = ("defaults", "handlers", "tasks", "vars")
    return [*repository.yaml_files(role, *folders), *repository.templates(role)]


def of_a_role(names):
    return {name for name in names if re.match(rf"(__)?({'|'.join(ROLES)})(_|\b)", name)}


def own_facts(role):
    """Return the names that a role's vars, registers, facts and loops define."""
    names = set()
    for name in {role} | repository.dependencies(role):
        for path in repository.yaml_files(name, "vars"):
            names |= set(repository.load(path) or {})
    files = repository.yaml_files(role, "tasks", "handlers")
    for path in [*files, *repository.yaml_files(INSTALLER, "tasks")]:
        for task in repository.tasks_in(repository.load(path)):
            names |= {task.get("register")} | set(task.get("vars", {}))
            names |= set(task.get("ansible.builtin.set_fact", {}))
            names |= {task.get("loop_control", {}).get("loop_var")}
    return names


def test_every_option_is_used(role):
    """An unused option would have no effect."""
    used = set().union(*(repository.used_by(path) for name in ROLES for path in readers(name)))
    playbooks = "".join(path.read_text() for path in ROOT.glob("playbooks/*.yml"))
    used |= set(re.findall(r"[.](\w+) ", playbooks))  # of another host, such as release_serial
    for path in (ROOT / "plugins/filter").glob("*.py"):
        used |= set(re.findall(r"\w+", path.read_text()))
    unused = set(repository.options(role)) - used - set(INPUTS)
    assert not unused, f"no task, template or filter reads {sorted(unused)}"


def test_templates_have_the_ansible_managed_comment(role):
    texts = {path: path.read_text() for path in repository.templates(role)}
    parts = set().union(*map(repository.included_in, texts.values()))
    for path, text in texts.items():
        assert "ansible_managed" in text or path.name in {name.split("/")[-1] for name in parts}, (
            path
        )


def test_every_notified_handler_exists(role):
    """Ansible fails only when a task notifies a missing handler."""
    handlers = [
        handler
        for path in repository.yaml_files(role, "handlers")
        for handler in repository.tasks_in(repository.load(path))
    ]
    names = {name for handler in handlers for name in (handler["name"], handler.get("listen"))}
    for path in repository.yaml_files(role, "tasks"):
        for task in repository.tasks_in(repository.load(path)):
            parameters = task.get("vars", {}).get("certificates_self_signed", {})
            notified = task.get("notify", parameters.get("notify", []))
            for name in [notified] if isinstance(notified, str) else notified:
                assert name in names or "{{" in name, f"{path}: {task['name']}"


def test_no_task_hides_a_failure(role):
    for path in repository.yaml_files(role, "tasks", "handlers"):
        for task in repository.tasks_in(repository.load(path)):
            assert "ignore_errors" not in task, f"{path}: {task['name']}"
            assert task.get("failed_when") is not False, f"{path}: {task['name']}"


def test_no_task_depends_on_the_distribution(role):
    """Differences between distributions belong in vars."""
    for path in repository.yaml_files(role, "tasks", "handlers"):
        for task in repository.tasks_in(repository.load(path)):
            condition = str(task.get("when"))
            assert not re.search(r"distribution|os_family", condition), f"{path}: {condition}"


def test_readme_has_the_table_of_the_specs(role):
    readme = ROOT / f"roles/{role}/README.md"
    assert readme.read_text() == document_roles.documented(readme), (
        "out of date: run tools/document_roles.py"
    )


def test_patterns_match_to_the_end_of_the_text(role):
    """`$` also matches before a final newline, which would add a line to a file."""
    texts = "".join(path.read_text() for path in repository.yaml_files(role, "vars"))
    assert not re.findall(r"match(?:\(|', )'[^'\n]*\$'(?=[),])", texts)


def test_restarting_services_have_no_start_limit(role):
    """Its dependencies may be unavailable for a long time."""
    for path in (ROOT / "roles" / role).glob("[ft]*/**/*"):
        if path.is_file() and b"\nRestart" in path.read_bytes():
            assert "\nStartLimitIntervalSec=0\n" in path.read_text(), path
