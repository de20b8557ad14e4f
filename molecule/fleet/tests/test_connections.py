"""sudo with a password and a jump host, with mitogen."""

from __future__ import annotations

import re
import secrets

import pytest

from helpers.repository import ROOT

PLAYBOOK = """
- hosts: app-1:app-2
  gather_facts: false
  tasks:
    - ping:
    - {command: "sh -c 'echo client ${SSH_CONNECTION%% *}'"}
    - {command: "sh -c 'echo interpreter $PPID of $(id -un) on $(hostname)'", become: true}
    - {command: "sh -c 'echo interpreter $PPID of $(id -un) on $(hostname)'", become: true}
"""
SSH_CONFIG = """
Host jump
    HostName {jump}
Host *
    User deploy
    IdentityFile {keys}/id_ed25519
    UserKnownHostsFile {keys}/known_hosts
    StrictHostKeyChecking yes
    ControlPath none
"""


@pytest.fixture
def connect(operator, tmp_path):
    """Return a function that runs a small playbook on both app hosts."""
    (tmp_path / "connect.yml").write_text(PLAYBOOK)

    def connect(**variables):
        return operator.play(str(tmp_path / "connect.yml"), "-v", **variables)

    return connect


def assert_mitogen_ran_it_as_root(done):
    """Check that each host ran both tasks as root, in one interpreter."""
    assert done.code == 0, done.output
    for name in ("app-1", "app-2"):
        found = re.findall(rf"interpreter (\d+) of root on \S*{name}$", done.output, re.MULTILINE)
        assert len(found) == 2, done.output
        assert len(set(found)) == 1, done.output


def test_sudo_with_a_password(fleet, connect):
    password = secrets.token_hex(16)
    for name in ("app-1", "app-2"):
        fleet[name].check_output(
            "useradd --create-home ada && "
            f"echo ada:{password} | chpasswd && "
            "echo 'ada ALL=(ALL) ALL' >/etc/sudoers.d/ada && "
            "cp -r /home/deploy/.ssh /home/ada/.ssh && chown -R ada: /home/ada/.ssh"
        )
    try:
        assert connect(ansible_user="ada").code != 0
        done = connect(ansible_user="ada", ansible_become_password=password)
    finally:
        for name in ("app-1", "app-2"):
            fleet[name].check_output(
                "rm /etc/sudoers.d/ada; pkill -KILL -u ada; userdel --remove ada"
            )
    assert_mitogen_ran_it_as_root(done)


def test_through_a_jump_host(fleet, connect, tmp_path):
    jump = fleet["data"].ansible.get_variables()["ansible_host"]
    config = tmp_path / "ssh_config"
    config.write_text(SSH_CONFIG.format(jump=jump, keys=ROOT / ".local/ssh"))
    done = connect(ansible_ssh_common_args=f"-F {config} -o ProxyJump=jump")
    assert_mitogen_ran_it_as_root(done)
    clients = re.findall(r"client (\S+)$", done.output, re.MULTILINE)
    assert clients == [jump, jump]
