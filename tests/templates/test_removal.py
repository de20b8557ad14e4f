"""Units that the removal of an app stops and deletes."""

import json
import subprocess

import pytest

from helpers.repository import ANSIBLE_PLAYBOOK, ROOT

OWN = {
    "shop.target": "",
    "shop.network.service": "",
    "shop.recover.service": "",
    "shop-web@a.service": "Slice=shop.slice",
    "shop-web@.socket": "",
    "shop-worker@.service": "[Service]\nSlice=shop-processes.slice\n",
    "shop-nightly.service": "[Service]\nSlice=shop-timers.slice\n",
    "shop-nightly.timer": "",
    "shop-worker@.service.d/more.conf": "",
    "shop.run-.service.d/flaskstack.conf": "",
    "multi-user.target.wants/shop.target": "",
    "nftables.service.wants/shop.network.service": "",
}
OTHERS = {
    "shop-backup.service": "[Service]\nSlice=backup.slice\n",
    "shop-backup.timer": "",
    "multi-user.target.wants/shop-node-exporter.service": "",
    "shop-2-worker@.service": "[Service]\nSlice=shop-2-processes.slice\n",
    "shopping.target": "",
    "shop-log.service": "[Service]\n# Slice=shop-processes.slice\n",
}
PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.include_vars: {file: "%(role)s/vars/main.yml"}
    - ansible.builtin.include_tasks: "%(role)s/tasks/units.yml"
    - ansible.builtin.copy:
        dest: "%(folder)s/found"
        content: "{{ __gunicorn_found.files | map(attribute='path') | to_json }}"
    - ansible.builtin.copy:
        dest: "%(folder)s/units"
        content: "{{ __gunicorn_found_units | to_json }}"
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Return the paths and units found on a host."""
    folder = tmp_path_factory.mktemp("host")
    for name, text in (OWN | OTHERS).items():
        path = folder / "system" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "play.yml").write_text(PLAY % {"role": ROOT / "roles/gunicorn", "folder": folder})
    variables = {"app_name": "shop", "__gunicorn_units": str(folder / "system")}
    command = [
        ANSIBLE_PLAYBOOK,
        "-i",
        "localhost,",
        "-e",
        json.dumps(variables),
        folder / "play.yml",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    paths = [
        path.removeprefix(f"{folder}/system/")
        for path in json.loads((folder / "found").read_text())
    ]
    return paths, json.loads((folder / "units").read_text())


def test_only_units_of_the_app_are_removed(found):
    drop_ins = {"shop-worker@.service.d", "shop.run-.service.d"}
    files = {name for name in OWN if ".d/" not in name}
    assert set(found[0]) == files | drop_ins


def test_units_of_the_app_are_stopped(found):
    expected = {name for name in OWN if "/" not in name and "@" not in name}
    assert set(found[1]) == expected | {
        "shop-web@a.service",
        "shop-web@*.socket",
        "shop-worker@*.service",
    }
