"""Two apps share the hosts until the second is removed. Converge again to restore it."""

testinfra_hosts = ["ansible://site"]


def test_the_first_app_owns_the_settings_and_the_second_is_removed(
    host, hosts, inside, outside, play
):
    assert "192.0.2.1" not in hosts["data"].check_output("nft list table inet flaskstack")
    assert outside("data", "tcp/7000", "tcp/22") == {"tcp/7000": "open", "tcp/22": "open"}
    assert host.check_output("fail2ban-client get sshd maxretry") == "3"

    done = play("remove")
    assert done.code == 0, done.output
    assert outside("data", "tcp/7000", "tcp/22") == {"tcp/7000": "silence", "tcp/22": "open"}
    assert inside("site", "data", "tcp/3306") == {"tcp/3306": "open"}
    status = host.check_output("fail2ban-client status")
    assert "shop-probes" in status
    assert "blog-probes" not in status
