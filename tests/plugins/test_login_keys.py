"""Keys are written and removed safely in home directories where users can create links."""

import os
import pwd

import pytest

import login_keys

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFUUMvBf5c5Jcu6zjFPlz60luPQw5PkktQG/OLp/5Tm5 anna\n"
ANNA = {"name": "anna", "authorized": KEY, "present": True}


@pytest.fixture
def home(tmp_path):
    """Return the home directory of anna."""
    folder = tmp_path / "anna"
    folder.mkdir(0o755)
    return folder


@pytest.fixture
def others(tmp_path):
    """Return a directory with another user's keys."""
    folder = tmp_path / "others"
    folder.mkdir()
    (folder / "authorized_keys").write_text("keys of bert")
    return folder


@pytest.fixture
def accounts(home):
    """Return the passwd entries."""
    return [pwd.struct_passwd(("anna", "x", os.getuid(), os.getgid(), "", str(home), "/bin/bash"))]


def test_keys_are_written_once(home, accounts):
    keys = home / ".ssh/authorized_keys"
    before, after = login_keys.apply(ANNA, accounts, change=False)
    assert before != after
    assert not keys.exists()
    login_keys.apply(ANNA, accounts, change=True)
    assert keys.read_text().endswith(KEY)
    assert keys.parent.stat().st_mode & 0o777 == 0o700
    assert keys.stat().st_mode & 0o777 == 0o600
    before, after = login_keys.apply(ANNA, accounts, change=True)
    assert before == after


@pytest.mark.parametrize("change", [True, False])
def test_link_instead_of_the_directory_is_rejected(home, others, accounts, change):
    (home / ".ssh").symlink_to(others)
    with pytest.raises(login_keys.UnsafeError, match=r"anna/[.]ssh is a link"):
        login_keys.apply(ANNA, accounts, change=change)
    assert (others / "authorized_keys").read_text() == "keys of bert"


def test_link_instead_of_the_key_file_is_replaced(home, others, accounts):
    (home / ".ssh").mkdir()
    (home / ".ssh/authorized_keys").symlink_to(others / "authorized_keys")
    before, _ = login_keys.apply(ANNA, accounts, change=True)
    assert "keys of bert" not in before
    assert (others / "authorized_keys").read_text() == "keys of bert"
    assert (home / ".ssh/authorized_keys").read_text().endswith(KEY)


def test_removing_a_user_keeps_the_keys_of_others(home, others, accounts, monkeypatch):
    owners = []
    monkeypatch.setattr(os, "fchown", lambda _, *owner: owners.append(owner))  # needs root
    removed = ANNA | {"present": False}
    (home / ".ssh").symlink_to(others)
    login_keys.apply(removed, accounts, change=True)
    assert (others / "authorized_keys").read_text() == "keys of bert"
    assert owners == [(0, 0)]
    assert home.stat().st_mode & 0o777 == 0o700  # closed to other users

    (home / ".ssh").unlink()
    login_keys.apply(ANNA, accounts, change=True)
    login_keys.apply(removed, accounts, change=True)
    assert not (home / ".ssh/authorized_keys").exists()


def test_home_of_another_user_is_rejected(home):
    if os.getuid() == 0:
        os.chown(home, 4711, 4711)
    uid = home.stat().st_uid
    accounts = [pwd.struct_passwd(("anna", "x", uid, 1, "", str(home), ""))]
    bert = pwd.struct_passwd(("bert", "x", uid + 1, 1, "", str(home), ""))
    with pytest.raises(login_keys.UnsafeError, match="belongs to another user"):
        login_keys.apply(ANNA | {"name": "bert"}, [*accounts, bert], change=True)


def test_invalid_key_is_rejected(accounts):
    with pytest.raises(login_keys.UnsafeError, match="cannot read"):
        login_keys.apply(ANNA | {"authorized": "ssh-ed25519 AAAA\n"}, accounts, change=True)
