"""Secrets in generated files, ansible-vault and SOPS can be read and rotated."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import yaml

from helpers.playbook import run_playbook
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
        content: "{{ app_database_url }} {{ __secrets_rotation.names | join(',') }}"
        dest: "{{ result }}"
        mode: "0600"
"""


class Inventory:
    """A copy of inventory/droplet.example without its secrets."""

    def __init__(self, folder: Path) -> None:
        """Copy the example, and write a playbook that runs role secrets."""
        self.folder = folder / "inventory"
        shutil.copytree(ROOT / "inventory/droplet.example", self.folder)
        self.variables = self.folder / "group_vars/all"
        (self.variables / "secrets.yml").unlink()
        self.result = folder / "result"
        self.options: list[str] = []
        self.environment: dict[str, str] = {}
        self.play = folder / "play.yml"
        self.play.write_text(PLAY)

    def rotate(self, *options: str) -> tuple[int, str]:
        """Run role secrets on this machine; return the exit code and the output."""
        options = ("-i", self.folder, "-e", f"result={self.result}", *self.options, *options)
        return run_playbook(self.play, *options, **self.environment)

    def encrypt(self, file: str, name: str, value: str) -> None:
        """Append an encrypted variable to a file with `ansible-vault encrypt_string`."""
        tool = ANSIBLE_PLAYBOOK.with_name("ansible-vault")
        command = [str(tool), "encrypt_string", *self.options, "--stdin-name", name]
        encrypted = subprocess.check_output(command, input=value, text=True)
        with (self.variables / file).open("a") as lines:
            lines.write(encrypted + "\n")


def test_secrets_in_ansible_vault_can_be_rotated(tmp_path):
    vault = Inventory(tmp_path)
    (tmp_path / "password").write_text("the password of the vault\n")
    vault.options = ["--vault-password-file", str(tmp_path / "password")]
    for name, value in SECRETS.items():
        vault.encrypt("vault.yml", name, value)
    text = (vault.variables / "vault.yml").read_text()
    assert not [value for value in SECRETS.values() if value in text]
    code, output = vault.rotate()
    assert code
    assert "Nothing is rotated" in output
    code, output = vault.rotate("-e", "rotate_secrets=database")
    assert code
    assert "app_database_password_previous" in output
    vault.encrypt("previous.yml", "app_database_password_previous", "old-of-database")
    code, output = vault.rotate("-vvv", "--diff")
    assert code == 0, output
    url, names = vault.result.read_text().split()
    assert names == "database"
    assert ":now-of-the-database@" in url
    assert not (vault.folder / "secrets").exists()
    shown = [value for value in (*SECRETS.values(), "old-of-database") if value in output]
    # Only the copy task in PLAY shows a secret.
    assert [value for value in shown if value != SECRETS["app_database_password"]] == []


def test_generated_secrets_are_kept_until_the_inventory_reads_previous_ones(tmp_path):
    inventory = Inventory(tmp_path)
    text = (ROOT / "inventory/droplet.example/group_vars/all/secrets.yml").read_text()
    variables, folder = inventory.variables / "secrets.yml", inventory.folder / "secrets"
    variables.write_text(text.partition("app_secret_key_previous:")[0])  # an older inventory
    code, output = inventory.rotate("-e", "rotate_secrets=database")
    assert code
    assert "app_database_password_previous: does not read" in output
    assert "database.previous.txt" in output
    assert not [*folder.glob("*.previous.txt"), *folder.glob("rotation.json")]
    previous = (folder / "database.txt").read_text().strip()

    variables.write_text(text)
    code, output = inventory.rotate("-e", "rotate_secrets=database", "-vvv", "--diff")
    assert code == 0, output
    secrets = {path.name: path.read_text().strip() for path in folder.glob("database*")}
    assert secrets["database.previous.txt"] == previous
    assert len(secrets["database.txt"]) == 40
    assert secrets["database.txt"] != previous
    assert secrets["database.txt"] in inventory.result.read_text()
    assert previous not in output


def test_secrets_in_sops_can_be_rotated(tmp_path):
    inventory = Inventory(tmp_path)
    key = tmp_path / "key.txt"
    subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    public = key.read_text().split("public key: ")[1].split()[0]
    clear = SECRETS | {"app_database_password_previous": "old-of-database"}
    command = ["sops", "--encrypt", "--age", public, "--input-type=yaml", "--output-type=yaml"]
    encrypted = subprocess.check_output(
        [*command, "/dev/stdin"], input=yaml.safe_dump(clear), text=True
    )
    assert not [value for value in clear.values() if value in encrypted]
    (inventory.variables / "secrets.sops.yml").write_text(encrypted)
    inventory.environment = {
        "SOPS_AGE_KEY_FILE": str(key),
        "ANSIBLE_VARS_ENABLED": "host_group_vars,community.sops.sops",
    }
    code, output = inventory.rotate()
    assert code == 0, output
    assert inventory.result.read_text().endswith(" database")
