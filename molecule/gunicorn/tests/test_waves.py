"""A second app on the host: gevent, preloaded, with the role's ProxyFix."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.wait import wait_for

WEB = "waves-web@a.service"
FORWARDED = {
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "sea.example:8443",
    "X-Forwarded-Port": "8443",
    "X-Forwarded-Prefix": "/sea",
}


@pytest.fixture
def get(responses):
    """Return `get(path, headers, **query)`, which returns the JSON of the app's response."""
    return responses(81)


def test_factory_gets_its_arguments(get):
    assert get()["factory"] == ["atlantic", 2]


def test_gevent_patches_before_the_app_is_imported(get):
    assert get()["patched"] is True


def test_one_worker_answers_concurrent_requests(get):
    start = time.monotonic()
    with ThreadPoolExecutor(30) as visitors:
        answers = list(visitors.map(lambda _: get("/sleep"), range(30)))
    assert len({answer["pid"] for answer in answers}) == 1
    assert time.monotonic() - start < 10  # sequentially they would take a minute


def test_restart_waits_for_requests(host, get, unit):
    before = unit(WEB, "MainPID")
    with ThreadPoolExecutor(1) as visitor:
        running = visitor.submit(get, "/sleep")
        wait_for(lambda: host.check_output("ss -Hx state connected src /run/waves/a.sock"))
        host.check_output("systemctl restart %s", WEB)
        assert running.result()["pid"]
    assert unit(WEB, "MainPID") != before


def test_proxy_fix_applies_forwarded_headers(get):
    assert get("/where", FORWARDED) == {
        "self": "https://sea.example:8443/sea/where",
        "address": "192.0.2.7",
        "secure": True,
    }


def test_only_the_last_hop_is_trusted(get):
    forged = FORWARDED | {"X-Forwarded-For": "198.51.100.1, 192.0.2.7"}
    assert get("/where", forged)["address"] == "192.0.2.7"


def test_app_files_are_readable_only_by_their_app(host, get, secret_key):
    assert get()["sea"] == f"atlantic-{secret_key}"
    for kept, seen in (
        ("files/local.py", "files/local.py"),
        ("beside/more/beside.py", "more/beside.py"),
    ):
        file = host.file(f"/etc/waves/current/{kept}")
        assert (file.user, file.group, file.mode) == ("root", "waves", 0o640)
        assert host.run(f"runuser -u probe -- cat {file.path}").rc != 0
        assert secret_key in host.check_output(f"flaskstack waves run cat /etc/waves/{seen}")


def test_sqlite_works_in_the_instance_folder(host, get):
    assert get()["instance"] == "/srv/waves/shared/instance"
    assert get()["environment"]["FLASK_INSTANCE_PATH"] == "/srv/waves/shared/instance"
    with ThreadPoolExecutor(5) as visitors:
        list(visitors.map(lambda height: get(f"/waves/{height}"), range(20)))
    assert set(get("/waves/100")["heights"]) >= {*range(20), 100}
    assert host.file("/srv/waves/shared/instance/waves.db").user == "waves"


def test_only_the_writable_path_is_writable(host, get):
    assert get("/write", file="/var/spool/waves/out/x")["error"] is None
    assert host.file("/var/spool/waves/out").user == "waves"
    assert get("/write", file="/var/spool/waves/x")["error"] == "OSError"


def test_app_cannot_write_to_another_app(host, get):
    """The other app's folder does not exist in its sandbox."""
    assert host.file("/srv/probe/shared").is_directory
    assert get("/write", file="/srv/probe/shared/x")["error"] == "FileNotFoundError"


def test_flask_finds_the_app_and_its_instance(host):
    code = "from flask import current_app as a; print(a.instance_path, len(a.url_map._rules))"
    output = host.check_output("echo %s | flaskstack waves run flask shell 2>/dev/null", code)
    assert "/instance 6" in output


def test_sandbox_exception_is_applied_with_its_reason(host, unit):
    assert "waves asks for the host's addresses" in host.check_output("systemctl cat %s", WEB)
    families = unit(WEB, "RestrictAddressFamilies").split()
    assert set(families) == {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"}
