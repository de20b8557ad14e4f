"""Secrets in generated files, ansible-vault and SOPS can be read and rotated."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from helpers.repository import ANSIBLE_PLAYBOOK, ROOT

SECRETS = {
    "app_secret_key": "Kq3vX8mZ1bT6yN0rW5cJ9fH2gL7pD4sA",
    "app_database_password": "now-of-the-database",
    "app_migration_password": "now-of-migrations",
    "app_cache_password": "now-of-the-cache",
    "app_queue_password": "now-of-the-queue",
}
PLAY = """
- hosts: app
  connection: local
  gather_facts: false
  any_errors_fatal: true
  vars:
    ansible_python_interpreter: "{{ ansible_playbook_python }}"
  roles: [secrets]
  tasks:
    - ansible.builtin.copy:
        content: "{{ app_database_url }} {{ __secrets_names | join(',') }}"
        dest: "{{ answer }}"
        mode: "0600"
"""


class Inventory:
    """A copy of inventory/droplet.example without its secrets."""

    def __init__(self, folder: Path) -> None:
        """Copy the example without its secrets."""
        self.folder = folder / "inventory"
        shutil.copytree(ROOT / "inventory/droplet.example", self.folder)
        self.variables = self.folder / "group_vars/all"
        (self.variables / "secrets.yml").unlink()
        self.answer = folder / "answer"
        self.options: list[str] = []
        self.environment = os.environ | {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }
        (folder / "play.yml").write_text(PLAY)
        self.command = [ANSIBLE_PLAYBOOK, "-i", self.folder, folder / "play.yml"]

    def run(self, *options: str) -> tuple[int, str]:
        """Start a rotation on this machine; return the exit code and the output."""
        command = [*map(str, self.command), "-e", f"answer={self.answer}"]
        environment = self.environment | {"ANSIBLE_ROLES_PATH": str(ROOT / "roles")}
        done = subprocess.run(
            [*command, *self.options, *options],
            env=environment,
            cwd=ROOT,
            text=True,
            capture_output=True,
            check=False,
        )
        return done.returncode, " ".join((done.stdout + done.stderr).split())

    def lock(self, path: Path, name: str, value: str) -> None:
        """Append an encrypted variable to a file with `ansible-vault encrypt_string`."""
        tool = ANSIBLE_PLAYBOOK.with_name("ansible-vault")
        command = [str(tool), "encrypt_string", *self.options, "--stdin-name", name]
        locked = subprocess.run(
            command, input=value, text=True, capture_output=True, check=True, env=self.environment
        )
        with path.open("a") as file:
            file.write(locked.stdout + "\n")


@pytest.fixture
def vault(tmp_path: Path) -> Inventory:
    """Return an inventory with its secrets in ansible-vault."""
    inventory = Inventory(tmp_path)
    (tmp_path / "password").write_text("the password of the vault\n")
    inventory.options = ["--vault-password-file", str(tmp_path / "password")]
    for name, value in SECRETS.items():
        inventory.lock(inventory.variables / "vault.yml", name, value)
    return inventory


def test_secrets_in_ansible_vault_can_be_rotated(vault):
    text = (vault.variables / "vault.yml").read_text()
    assert not [value for value in SECRETS.values() if value in text]
    code, said = vault.run()
    assert code
    assert "Nothing is rotated" in said
    code, said = vault.run("-e", "rotate_secrets=database")
    assert code
    assert "app_database_password_previous" in said
    vault.lock(
        vault.variables / "previous.yml", "app_database_password_previous", "old-of-database"
    )
    code, said = vault.run("-vvv", "--diff")
    assert code == 0, said
    url, names = vault.answer.read_text().split()
    assert names == "database"
    assert ":now-of-the-database@" in url
    assert not (vault.folder / "secrets").exists()
    hidden = [value for value in (*SECRETS.values(), "old-of-database") if value in said]
    # Only the task of this test shows a secret.
    assert [value for value in hidden if value != SECRETS["app_database_password"]] == []


def test_generated_secrets_are_kept_until_the_inventory_reads_previous_ones(tmp_path):
    inventory = Inventory(tmp_path)
    text = (ROOT / "inventory/droplet.example/group_vars/all/secrets.yml").read_text()
    variables, folder = inventory.variables / "secrets.yml", inventory.folder / "secrets"
    variables.write_text(text.partition("# The previous secrets")[0])  # an older inventory
    code, said = inventory.run("-e", "rotate_secrets=database")
    assert code
    assert "app_database_password_previous: does not read" in said
    assert "database.previous.txt" in said
    assert not [*folder.glob("*.previous.txt"), *folder.glob("rotation.json")]
    before = (folder / "database.txt").read_text().strip()

    variables.write_text(text)
    code, said = inventory.run("-e", "rotate_secrets=database", "-vvv", "--diff")
    assert code == 0, said
    made = {path.name: path.read_text().strip() for path in folder.glob("database*")}
    assert made["database.previous.txt"] == before
    assert len(made["database.txt"]) == 40
    assert made["database.txt"] != before
    assert made["database.txt"] in inventory.answer.read_text()
    assert before not in said


def test_secrets_in_sops_can_be_rotated(tmp_path):
    inventory = Inventory(tmp_path)
    key = tmp_path / "key.txt"
    subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    public = key.read_text().split("public key: ")[1].split()[0]
    clear = SECRETS | {"app_database_password_previous": "old-of-database"}
    locked = subprocess.run(
        [
            "sops",
            "--encrypt",
            "--age",
            public,
            "--input-type=yaml",
            "--output-type=yaml",
            "/dev/stdin",
        ],
        input=yaml.safe_dump(clear),
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    assert not [value for value in clear.values() if value in locked]
    (inventory.variables / "secrets.sops.yml").write_text(locked)
    inventory.environment |= {
        "SOPS_AGE_KEY_FILE": str(key),
        "ANSIBLE_VARS_ENABLED": "host_group_vars,community.sops.sops",
    }
    code, said = inventory.run()
    assert code == 0, said
    assert inventory.answer.read_text().endswith(" database")
