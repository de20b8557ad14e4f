"""A run rejects secrets that differ from those of a host, and removes any that it generated.

All hosts are this machine, each with its own directory of digests.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from helpers.playbook import run_playbook
from helpers.repository import ROOT

RECORD = """
- hosts: all
  gather_facts: false
  tasks: [{ansible.builtin.import_role: {name: secrets, tasks_from: record}}]
"""
LOCAL = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": "{{ ansible_playbook_python }}",
}
OWN_SECRET = (
    "{{ lookup('ansible.builtin.password', secret_folder ~ '/diagnostics_key.txt' ~ secret_form) }}"
)
NAMES = ("secret_key", "database", "migration", "cache", "queue", "diagnostics_key")


class Checkout:
    """A checkout with an inventory."""

    def __init__(self, folder: Path, hosts: Path, names: tuple[str, ...]) -> None:
        """Copy the example inventory, which has no secrets."""
        self.inventory, self.hosts = folder / "inventory/production", hosts
        shutil.copytree(ROOT / "inventory/droplet.example", self.inventory)
        (folder / "sample_app").symlink_to(ROOT / "sample_app")
        (folder / "record.yml").write_text(RECORD)
        self.record = folder / "record.yml"
        everyone = dict.fromkeys(names, LOCAL)
        tiers = {
            tier: {"hosts": everyone} for tier in ("edge", "app", "database", "cache", "queue")
        }
        settings = {"app_secret_environment": {"DIAGNOSTICS_KEY": OWN_SECRET}}
        site = {"all": {"hosts": everyone, "children": tiers, "vars": settings}}
        (self.inventory / "hosts.yml").write_text(json.dumps(site))
        self.folder = self.inventory / "secrets"

    def play(self, *options: str, also: tuple[Path, ...] = (), **variables) -> tuple[int, str]:
        """Validate as deploy.yml does; return the exit code and the output."""
        variables["__secrets_digests_folder"] = f"{self.hosts}/{{{{ __secrets_host }}}}"
        playbooks = [ROOT / "playbooks/preflight_release.yml", *also]
        return run_playbook("-i", self.inventory, *playbooks, "-e", json.dumps(variables), *options)

    def set_up(self, *options: str, **variables) -> None:
        """Validate the secrets and record them on the hosts."""
        code, output = self.play(*options, also=(self.record,), **variables)
        assert code == 0, output

    def secrets(self) -> dict[str, str]:
        """Return the contents of the secrets' files."""
        return {path.stem: path.read_text() for path in self.folder.glob("*")}


@pytest.fixture
def checkout(tmp_path):
    """Return a function that creates a checkout."""
    return lambda name, *hosts: Checkout(tmp_path / name, tmp_path / "hosts", hosts or ("shop-1",))


def test_fresh_clone_is_rejected_and_keeps_no_secrets(checkout, tmp_path):
    ours = checkout("ours", "shop-1", "shop-2")
    ours.set_up()
    assert ours.secrets().keys() == set(NAMES)
    theirs = checkout("theirs", "shop-1", "shop-2")
    code, output = theirs.play()
    assert code
    for name in ("app_secret_key", "app_database_password", "DIAGNOSTICS_KEY", "shop-1, shop-2"):
        assert name in output
    assert f"rsync --archive THERE:{theirs.folder}/ {theirs.folder}/" in output
    assert "-e new_secrets=true" in output
    assert theirs.secrets() == {}
    # A new host has no digests; those of the other hosts are compared.
    shutil.rmtree(tmp_path / "hosts/shop-2")
    code, output = theirs.play("--limit", "shop-2")
    assert code
    assert "shop-1: set up with other secrets" in output
    assert theirs.secrets() == {}
    ours.set_up("--limit", "shop-2")

    shutil.copytree(ours.folder, theirs.folder, dirs_exist_ok=True)
    theirs.set_up()
    (theirs.folder / "secret_key.txt").write_text("one-of-my-own-of-32-characters-or-more")
    code, output = theirs.play()
    assert code
    assert "app_secret_key" in output
    assert "DIAGNOSTICS_KEY" not in output
    theirs.set_up(new_secrets=True)
    code, output = ours.play()
    assert code
    assert "app_secret_key: a rotation has replaced" in output
    assert [text for text in theirs.secrets().values() if text.strip() in output] == []


def test_new_host_can_be_added_with_existing_secrets_while_others_are_unreachable(checkout):
    ours = checkout("ours", "shop-1", "shop-2")
    away = ours.inventory / "host_vars/shop-1.yml"
    away.parent.mkdir()
    away.write_text(json.dumps({"ansible_connection": "ssh", "ansible_host": "192.0.2.1"}))
    code, output = ours.play("--limit", "shop-2")
    assert code
    assert "shop-1 did not answer" in output
    assert ours.secrets() == {}
    ours.folder.mkdir(exist_ok=True)
    for name in NAMES:
        (ours.folder / f"{name}.txt").write_text("abcdefghijklmnopqrstuvwxyz0123456789")
    ours.set_up("--limit", "shop-2")


def test_missing_secret_is_not_replaced(checkout):
    ours = checkout("ours")
    ours.set_up()
    (ours.folder / "diagnostics_key.txt").unlink()
    code, output = ours.play()
    assert code
    assert "set up with other secrets" in output
    assert "DIAGNOSTICS_KEY. Nothing was changed. The secrets that this run has generated" in output
    assert "diagnostics_key" not in ours.secrets()
    (ours.folder / "diagnostics_key.txt").write_text("of-my-own\n")
    ours.set_up()


def test_run_that_fails_for_another_reason_keeps_no_secrets(checkout):
    ours = checkout("ours")
    (ours.inventory / "group_vars/all/wrong.yml").write_text('{"app_prefix": "shop/"}')
    code, output = ours.play()
    assert code
    assert "app_prefix is shop/" in output
    assert ours.secrets() == {}


def test_same_secrets_in_a_vault_are_accepted(checkout, tmp_path):
    ours = checkout("ours")
    ours.set_up()
    (tmp_path / "password").write_text("of-the-vault")
    vault = VaultLib([("default", VaultSecret(b"of-the-vault"))])
    variables = yaml.safe_load((ours.inventory / "group_vars/all/secrets.yml").read_text())
    # The app's own secret stays in a file.
    texts = [
        f"{name}: {json.dumps(variables[name])}\n" for name in ("secret_folder", "secret_form")
    ]
    for name in (name for name, value in variables.items() if ".txt' ~" in value):
        file = variables[name].split("'/")[1].split(".")[0]
        secret = ours.secrets()[file].split()[0]
        encrypted = vault.encrypt(secret).decode().replace("\n", "\n  ")
        texts.append(f"{name}: !vault |\n  {encrypted}\n")
        (ours.folder / f"{file}.txt").unlink()
    (ours.inventory / "group_vars/all/secrets.yml").write_text("".join(texts))
    ours.set_up("--vault-password-file", str(tmp_path / "password"))
    assert ours.secrets().keys() == {"diagnostics_key"}
