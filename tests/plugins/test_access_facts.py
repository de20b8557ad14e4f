"""What decides who reaches a host, gathered from its files and its sshd."""

import pytest

import access_facts


@pytest.fixture
def gather(tmp_path, monkeypatch):
    """Give `gather()`: the facts of a host whose files are below tmp_path, for the user root."""
    sshd = tmp_path / "sshd"
    sshd.write_text('#!/bin/sh\necho "asked $*"\n')
    sshd.chmod(0o755)
    monkeypatch.setattr(access_facts, "SSHD", str(sshd))
    monkeypatch.setattr(access_facts, "RUN", tmp_path / "run")
    return lambda: access_facts.gather("root", "203.0.113.7", tmp_path)


def write(folder, path, text=""):
    """Write a file below the folder."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_bare_host(gather, tmp_path):
    facts = gather()
    assert facts["users"]["root"][1:3] == ["0", "0"]
    assert facts["users"]["root"][4] == "/root"
    assert facts["sshd"] == "asked -T -C user=root,host=203.0.113.7,addr=203.0.113.7\n"
    assert facts["sshd_defaults"] == "asked -T -f /dev/null\n"
    assert "root" in facts["groups"]
    assert (tmp_path / "run").is_dir()
    assert facts["firewalls"] == []
    for name in ("sshd_includes", "has_key", "has_sudo_rule", "has_rules"):
        assert facts[name] is False, name


def test_a_host_without_sshd(gather, monkeypatch):
    monkeypatch.setattr(access_facts, "SSHD", "/nonexistent/sshd")
    assert gather()["sshd"] == ""


@pytest.mark.parametrize(
    ("text", "included"),
    [
        ("Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n", True),
        ("UsePAM yes\nInclude sshd_config.d/*.conf\n", True),
        ("#Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n", False),
        ("UsePAM yes\n", False),
    ],
)
def test_drop_ins_are_read_where_sshd_config_includes_them(gather, tmp_path, text, included):
    write(tmp_path, "etc/ssh/sshd_config", text)
    assert gather()["sshd_includes"] is included


@pytest.mark.parametrize(
    ("text", "has_key"),
    [("ssh-ed25519 AAAA ada\n", True), ("# ssh-ed25519 AAAA\n", False), ("\n", False)],
)
def test_a_key_counts_unless_it_is_a_comment(gather, tmp_path, text, has_key):
    write(tmp_path, "root/.ssh/authorized_keys", text)
    assert gather()["has_key"] is has_key


def test_firewalls_that_are_enabled(gather, tmp_path):
    write(tmp_path, "etc/ufw/ufw.conf", "ENABLED=no\n")
    assert gather()["firewalls"] == []
    write(tmp_path, "etc/ufw/ufw.conf", "# ufw\nENABLED=yes\n")
    for link in (
        "multi-user.target.wants/firewalld.service",
        "sysinit.target.wants/nftables.service",
    ):
        (tmp_path / "etc/systemd/system" / link).parent.mkdir(parents=True)
        (tmp_path / "etc/systemd/system" / link).symlink_to("/usr/lib/systemd/system")
    assert gather()["firewalls"] == ["ufw", "firewalld", "nftables"]
    write(tmp_path, "etc/systemd/system/nftables.service.d/flaskstack.conf")
    assert gather()["firewalls"] == ["ufw", "firewalld"]


def test_what_flaskstack_wrote_before(gather, tmp_path):
    write(tmp_path, "etc/sudoers.d/flaskstack_root")
    write(tmp_path, "etc/flaskstack/firewall.nft")
    facts = gather()
    assert facts["has_sudo_rule"]
    assert facts["has_rules"]
