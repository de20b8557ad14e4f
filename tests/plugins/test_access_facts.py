"""Facts about SSH access and firewalls, from a host's files and its sshd."""

import pytest

import access_facts

OUTPUT = "port AllowUsers ciphers"  # keywords; OpenSSH 10.6 prints mixed case


@pytest.fixture
def gather(tmp_path, monkeypatch):
    """Return a function that gathers the facts of a host with files below tmp_path, for root."""
    sshd = tmp_path / "sshd"
    sshd.write_text(f'#!/bin/sh\nfor name in {OUTPUT}; do echo "$name $*"; done\n')
    sshd.chmod(0o755)
    monkeypatch.setattr(access_facts, "SSHD", str(sshd))
    monkeypatch.setattr(access_facts, "RUN", tmp_path / "run")
    return lambda: access_facts.gather("root", "203.0.113.7", tmp_path)


def write(folder, path, text=""):
    """Write a file below the directory."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_facts_of_a_new_host(gather, tmp_path):
    facts = gather()
    assert facts["users"]["root"][1:3] == ["0", "0"]
    assert facts["users"]["root"][4] == "/root"
    connection = "-T -C user=root,host=203.0.113.7,addr=203.0.113.7"
    names = ("port", "allowusers", "ciphers")
    assert facts["sshd"] == [f"{name} {connection}" for name in names]
    assert "root" in facts["groups"]
    assert (tmp_path / "run").is_dir()
    assert facts["firewalls"] == []
    for name in ("sshd_includes", "has_key", "has_sudo_rule", "has_rules"):
        assert facts[name] is False, name


def test_facts_of_a_host_without_sshd(gather, monkeypatch):
    monkeypatch.setattr(access_facts, "SSHD", "/nonexistent/sshd")
    assert gather()["sshd"] == []


def test_default_algorithms_of_sshd(gather, tmp_path):
    (tmp_path / "sshd").write_text(
        "#!/bin/sh\n[ \"$*\" != '-T -f /dev/null' ] || "
        "printf 'port 22\\nciphers a,b\\nkexalgorithms c\\nmacs d,e\\n'\n"
    )
    assert gather()["sshd_algorithms"] == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("text", "included"),
    [
        ("Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n", True),
        ("UsePAM yes\nInclude sshd_config.d/*.conf\n", True),
        ("#Include /etc/ssh/sshd_config.d/*.conf\nUsePAM yes\n", False),
        ("UsePAM yes\n", False),
    ],
)
def test_include_of_drop_ins_is_detected(gather, tmp_path, text, included):
    write(tmp_path, "etc/ssh/sshd_config", text)
    assert gather()["sshd_includes"] is included


@pytest.mark.parametrize(
    ("text", "has_key"),
    [("ssh-ed25519 AAAA ada\n", True), ("# ssh-ed25519 AAAA\n", False), ("\n", False)],
)
def test_authorized_key_is_detected_unless_commented_out(gather, tmp_path, text, has_key):
    write(tmp_path, "root/.ssh/authorized_keys", text)
    assert gather()["has_key"] is has_key


def test_enabled_firewalls_are_detected(gather, tmp_path):
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


def test_files_of_a_previous_run_are_detected(gather, tmp_path):
    write(tmp_path, "etc/sudoers.d/flaskstack_root")
    write(tmp_path, "etc/flaskstack/firewall.nft")
    facts = gather()
    assert facts["has_sudo_rule"]
    assert facts["has_rules"]
