"""Playbooks parse, use the required collections and match the list of roles."""

import json
import os
import re
import subprocess

import ansible_collections
import pytest
from packaging.specifiers import SpecifierSet

from helpers import repository
from helpers.repository import ANSIBLE_PLAYBOOK, ROOT

CONTENT = re.compile(r"\b((?:ansible|community|containers)\.[a-z]+)\.[a-z_]+\b")
PLAYBOOKS = [
    path
    for path in [ROOT / "site.yml", *sorted(ROOT.glob("playbooks/*.yml"))]
    if isinstance(repository.load(path), list) and "name" in repository.load(path)[0]
]
REQUIRED = {
    item["name"]: item.get("version", "*")
    for item in (repository.load("requirements.yml") or {}).get("collections", [])
}
SITE = repository.load("site.yml")
REMOVAL = "playbooks/remove_app.yml"


def test_playbooks_parse():
    command = [ANSIBLE_PLAYBOOK, "--syntax-check", *map(str, PLAYBOOKS)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", REQUIRED)
def test_installed_collections_satisfy_the_bounds(name):
    bounds = REQUIRED[name]
    assert re.search(r">=?\d.*<\d", bounds), f"{name} needs a lower and an upper bound"
    assert SpecifierSet(bounds).contains(installed(name))


def installed(name):
    for folder in ansible_collections.__path__:
        manifest = f"{folder}/{name.replace('.', '/')}/MANIFEST.json"
        try:
            with open(manifest) as file:
                return json.load(file)["collection_info"]["version"]
        except FileNotFoundError:
            continue
    pytest.fail(f"{name} is not installed")


def test_used_collections_are_the_required_ones():
    files = [
        path for folder in (".config", "roles", "playbooks", "molecule") for path in yaml_in(folder)
    ]
    used = {name for path in files for name in CONTENT.findall(path.read_text())}
    assert used - {"ansible.builtin"} == set(REQUIRED)


def yaml_in(folder):
    return [path for path in (ROOT / folder).rglob("*.yml") if ".ansible" not in path.parts]


SITE_ROLES = {role["name"]: role for role in repository.SITE_ROLES}
PROVISIONED = SITE_ROLES.keys() - {"release"}  # in separate plays


def test_list_has_every_role_that_configures_hosts():
    """Validation, packages and removal follow the list."""
    files = {
        name: {path.parts[-3] for path in ROOT.glob(f"roles/*/tasks/{name}.yml")}
        for name in ("provision", "remove")
    }
    assert files["provision"] == PROVISIONED
    assert SITE_ROLES.keys() <= files["remove"]
    removed = [role for role, tasks in repository.roles_in(REMOVAL) if tasks == "remove"]
    assert removed == [*reversed(SITE_ROLES), "secrets"]


def test_plays_have_the_order_groups_and_tags_of_the_list():
    plays = [
        {"name": role, "groups": play["hosts"].split(":"), "tags": play["tags"]}
        for play in repository.load("playbooks/provision.yml")
        for role, tasks in repository.roles_in([play])
        if tasks == "provision"
    ]
    assert plays == [SITE_ROLES[name] for name in SITE_ROLES if name in PROVISIONED]
    (release,) = [play for play in SITE if "release" in play.get("tags", [])]
    assert release["tags"] == SITE_ROLES["release"]["tags"]


def test_packages_are_installed_with_the_tag_of_each_role():
    (play,) = [
        play
        for play in repository.load("playbooks/provision.yml")
        if ("packages", "main") in repository.roles_in([play])
    ]
    assert set(play["tags"]) >= PROVISIONED


@pytest.mark.parametrize("role", sorted(SITE_ROLES))
def test_packages_are_in_the_variable_of_their_role(role):
    tasks = ROOT / f"roles/{role}/tasks/main.yml"
    variables = set().union(*map(repository.load, repository.yaml_files(role, "vars")))
    assert "packages_names" not in tasks.read_text() or f"__{role}_packages" in variables


def test_backups_precede_the_removal():
    steps = repository.roles_in(REMOVAL)
    removed = [step for step in steps if step[1] == "remove"]
    kept = [step for step in steps if step[1] in ("keep", "backup")]
    assert steps[0] == ("app", "host")  # checks that no other app uses these names
    assert {role for role, _ in kept} == {"gunicorn", "mysql"}
    assert max(map(steps.index, kept)) < min(map(steps.index, removed))


def test_roles_are_validated_before_a_host_changes():
    imported = (play.get("ansible.builtin.import_playbook") for play in SITE)
    first, *others = filter(None, imported)
    assert first == "playbooks/preflight.yml"
    (play,) = repository.load(first)
    (task,) = [task for task in repository.tasks_in(play["tasks"]) if "role_settings" in task]
    assert "site_roles | in_groups(group_names)" in task["role_settings"]["roles"]
    changing = {role for file in others for role, _ in repository.roles_in(file)}
    assert changing - SITE_ROLES.keys() == {"packages", "app", "secrets"}


TAGS = {*SITE_ROLES, "lockout_guard"}


@pytest.fixture(scope="module")
def listed():
    """Return the tasks of site.yml as pairs: name and set of tags."""
    command = [ANSIBLE_PLAYBOOK, "--inventory", "inventory/droplet.example", "site.yml"]
    options = ["--list-tags", "--list-tasks"]
    result = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = re.findall(r"^ +(.+?)\tTAGS: \[(.*)\]$", result.stdout, re.MULTILINE)
    return [(task, set(tags.split(", "))) for task, tags in found]


@pytest.mark.parametrize("tag", sorted(TAGS))
def test_role_name_is_a_tag(listed, tag):
    """The tag runs the validation and the whole role, but no other tier."""
    own = [tags for task, tags in listed if task.startswith(f"{tag} : ")]
    assert own or tag == "lockout_guard"  # firewall and ssh include its tasks
    assert [tags for tags in own if not tags & {tag, "always"}] == []
    chosen = {task.partition(" : ")[0] for task, tags in listed if tag in tags}
    assert tag not in ("nginx", "mysql", "ssh") or not chosen & {"gunicorn", "redis", "base"}


def test_tasks_have_no_tags_of_their_own():
    """Included tasks inherit the tags of the play, but not those of the including task."""
    for file in ("site.yml", "playbooks/provision.yml", "playbooks/release.yml"):
        for play in repository.load(file):
            tasks = repository.tasks_in(play.get("tasks"))
            assert [task["name"] for task in tasks if "tags" in task] == []


def test_world_writable_checkout_uses_ansible_cfg(tmp_path):
    """In WSL below /mnt/c, .venv/bin/activate sets ANSIBLE_CONFIG, added by `./stack tools`."""
    line = re.search(
        r"printf '\\n(export .*?)\\n' .*>>.venv/bin/activate", (ROOT / "stack").read_text()
    )
    for name in ("ansible.cfg", "playbooks", "plugins", "roles", "site.yml", "inventory"):
        (tmp_path / name).symlink_to(ROOT / name)
    tmp_path.chmod(0o777)
    command = [ANSIBLE_PLAYBOOK, "--inventory", "inventory/dice.example", "--syntax-check"]
    results = {
        activated: subprocess.run(
            ["bash", "-c", f'{activated}\nexec "$@"', "-", *command, "playbooks/plan.yml"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
        )
        for activated in ("", line[1].replace("%q", f"{tmp_path}/ansible.cfg"))
    }
    assert [result.returncode for result in results.values()] == [1, 0], results


def test_failed_rotation_releases_the_deploy_lock():
    """Check each play after the one that acquires the lock."""
    _, locks, *plays = repository.load("playbooks/rotate_secrets.yml")
    assert locks["tasks"][-1]["ansible.builtin.import_role"]["tasks_from"] == "lock"
    for play in plays:
        block, *others = play["tasks"]
        unlock, _ = (task.get("ansible.builtin.include_role") for task in block["rescue"])
        assert unlock == {"name": "release", "tasks_from": "unlock"}
        assert [task["name"] for task in others] in ([], ["Release the deploy lock"])
