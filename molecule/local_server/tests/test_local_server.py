"""A local server behaves as a small cloud server does."""

import requests

IMPORT = """
import sys
from zipfile import ZipFile
seen = []
sys.addaudithook(lambda event, told: seen.append(told[1]) if event == "compile" else None)
with ZipFile("/run/test.zip", "w") as archive:
    archive.writestr("greeting.py", f"WORDS = {sys.argv[1]!r}")
sys.path.insert(0, "/run/test.zip")
import greeting
print(greeting.WORDS, "compiled" if "/run/test.zip/greeting.py" in seen else "kept")
"""


def test_every_unit_started(host):
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_runs_the_release_it_is_named_after(host):
    names = host.check_output("cat /etc/os-release")
    release = host.backend.get_hostname()
    assert f"VERSION_CODENAME={release}" in names or (release == "sid" and "/sid" in names)


def test_services_answer_from_outside(host, address):
    assert "nginx" in requests.get(f"http://{address}", timeout=5).text


def test_reaches_the_package_index(host):
    host.check_output("python3 -m pip download --quiet --no-deps --dest /tmp/index six")


def test_has_a_machine_id_of_its_own(host):
    assert len(host.check_output("cat /etc/machine-id")) == 32


def test_what_a_task_brings_is_compiled_once(host):
    said = [host.check_output("python3 -c %s %s", IMPORT, word) for word in ("a", "a", "b", "a")]
    assert said == ["a compiled", "a kept", "b compiled", "a kept"]


def test_others_have_what_root_keeps_and_can_add_nothing(host):
    host.check_output("python3 -c %s common", IMPORT)
    host.check_output("chmod 0666 /run/test.zip")
    as_other = "runuser --user nobody -- python3 -c %s %s"
    said = [host.check_output(as_other, IMPORT, word) for word in ("common", "rare", "rare")]
    assert said == ["common kept", "rare compiled", "rare compiled"]
