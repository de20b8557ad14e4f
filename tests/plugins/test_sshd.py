"""What an OpenSSH server says of itself."""

from sshd import sshd_settings


def test_keywords_are_the_same_whichever_openssh_says_them_and_values_are_left_alone():
    older = "port 22\nauthorizedkeysfile .ssh/authorized_keys\nallowusers Anna bob\nbanner none\n"
    newer = "Port 22\nAuthorizedKeysFile .ssh/authorized_keys\nAllowUsers Anna bob\nBanner none\n"
    assert sshd_settings(older) == sshd_settings(newer)
    assert sshd_settings(newer)[2] == "allowusers Anna bob"
