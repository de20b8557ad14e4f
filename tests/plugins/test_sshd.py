"""Settings that an OpenSSH server prints."""

from sshd import sshd_settings


def test_keywords_are_lower_case_and_values_unchanged():
    older = "port 22\nauthorizedkeysfile .ssh/authorized_keys\nallowusers Anna bob\nbanner none\n"
    newer = "Port 22\nAuthorizedKeysFile .ssh/authorized_keys\nAllowUsers Anna bob\nBanner none\n"
    assert sshd_settings(older) == sshd_settings(newer)
    assert sshd_settings(newer)[2] == "allowusers Anna bob"
