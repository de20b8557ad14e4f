"""A sandbox reaches only allowed addresses, confines all its code, and gives its tree to root."""

from __future__ import annotations

import socket
import threading

import pytest

from flaskstack import sandbox
from flaskstack.errors import DeployError, ValidationError


@pytest.fixture
def final(sandboxed):
    """Return the final path of the sandbox's tree."""
    return sandboxed / "root/releases/one"


@pytest.mark.parametrize(
    ("trusted", "named", "ports"),
    [
        (["https://127.0.0.1/simple", "http://127.0.0.1", "127.0.0.1:5000"], [], [443, 80, 5000]),
        ([], ["https://127.0.0.1", "https://169.254.169.254", "10.1.2.3", "[::1]", "["], []),
        (["https://127.0.0.1:81/"], ["http://localhost:81", "http://localhost:82"], [81, 81]),
        ([], ["https://8.8.8.8/"], [443]),
        (["https://no-such-host.invalid", "file:///index"], [], []),
    ],
)
def test_addresses_named_by_others_must_be_public_or_trusted(trusted, named, ports):
    assert [port for _, port, _ in sandbox.addresses(trusted, named)] == ports


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1", "64:ff9b::808:808"])
def test_public_addresses(address):
    assert sandbox.is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::a9fe:a9fe",  # 169.254.169.254 through NAT64
        *("168.63.129.16", "100.100.100.200", "fd00:ec2::254"),  # metadata services
        *("fe80::1", "192.168.1.1", "224.0.0.1"),
    ],
)
def test_addresses_that_are_not_public(address):
    assert not sandbox.is_public(address)


def test_rules_and_names_match_those_of_the_hosts(sandboxed, final):
    with sandbox.opened("shop", final, trusted=["https://localhost:8443"]) as box:
        rules = (sandboxed / "bin/nft.log").read_text()
        names = box.run("Reading", f"cat {sandboxed}/files/hosts")
    addresses = {known[4][0] for known in socket.getaddrinfo("localhost", 8443)}
    for address in addresses:
        family = "ip6" if ":" in address else "ip"
        assert f"    {family} daddr {address} tcp dport 8443 accept\n" in rules
        assert f"{address} localhost\n" in names
    assert rules.count(" dport 8443 accept\n") == rules.count(" dport ") == len(addresses)
    log = (sandboxed / "bin/nft.log").read_text()
    assert log.endswith("delete table inet flaskstack_shop-build\n")


def test_the_tree_is_given_to_root(final, tmp_path):
    (tmp_path / "outside").touch(0o604)
    with sandbox.opened("shop", final) as box:
        box.run("Making", "mkdir -m 0777 a; touch a/file; chmod 0666 a/file; touch a/run")
        box.run("Making", f"chmod 0777 a/run; ln -s {tmp_path}/outside a/link")
        assert not final.exists()
        box.keep()
    modes = {path.name: oct(path.lstat().st_mode & 0o7777) for path in final.rglob("*")}
    assert modes == {"a": "0o755", "file": "0o644", "run": "0o755", "link": "0o777"}
    assert oct((tmp_path / "outside").stat().st_mode)[-3:] == "604"


def test_special_files_are_rejected(final):
    with sandbox.opened("shop", final) as box:
        box.run("Making", "mkdir a; mkfifo a/pipe")
        with pytest.raises(DeployError, match="a/pipe is neither"):
            box.keep()
    assert not final.exists()


def test_a_failure_is_reported_and_leaves_no_files(sandboxed, final):
    """Files of earlier interrupted runs are removed too."""
    (final.parent / ".another/tree/a").mkdir(parents=True)
    error = r"^Step failed with code 7:\n(.*\n)*50\nno such \$thing$"
    with pytest.raises(ValidationError, match=error), sandbox.opened("shop", final) as box:
        box.run("Step", "echo half >file; seq 50; echo 'no such $thing' >&2; exit 7")
    assert not final.exists()


def test_a_build_waits_until_the_failure_of_the_previous_one_is_reported(sandboxed, final, program):
    """Systemd refuses a unit whose name is still in use."""
    reported = sandboxed / "reported"
    program("systemctl", f"#!/bin/sh\n[ $1 = stop ] || cat {reported}\n")
    reported.write_text("loaded\n")
    waiting = threading.Timer(0.5, reported.write_text, ["not-found\n"])
    waiting.start()
    with sandbox.opened("shop", final) as box:
        assert box.run("Step", f"cat {reported}").strip() == "not-found"
    waiting.join()


@pytest.mark.parametrize("missing", ["nft", "systemd-run", "filter"])
def test_unconfined_code_is_never_run(sandboxed, final, program, monkeypatch, missing):
    if missing == "filter":
        program("nft", "#!/bin/sh\necho not permitted; exit 1\n")
    else:
        (sandboxed / "bin" / missing).unlink()
        monkeypatch.setenv("PATH", f"{sandboxed}/bin")
        for name in ("sync", "bash", "mv"):
            (sandboxed / "bin" / name).symlink_to(f"/usr/bin/{name}")
    with pytest.raises(DeployError), sandbox.opened("shop", final) as box:
        box.run("Step", f"/usr/bin/touch {sandboxed}/ran")
    assert not (sandboxed / "ran").exists()


def test_a_missing_account_is_reported(monkeypatch, final):
    monkeypatch.undo()
    with pytest.raises(DeployError, match=r"no_such-build is missing; site\.yml"):
        sandbox.build_account("no_such")


def test_systemd_reads_variables_unchanged():
    text = sandbox.environment_file({"A": 'a $b `c` "d" \\'})
    assert text == 'A="a \\$b \\`c\\` \\"d\\" \\\\"\n'
