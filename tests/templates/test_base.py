"""Host settings. A container does not change kernel settings of its host."""

from __future__ import annotations

import os
import re
import subprocess

from helpers.templates import problems

SYSCTL = "etc/sysctl.d/60-flaskstack.conf.j2"
MACHINE = {
    "virtualization_tech_guest": ["kvm"],
    "mounts": [{"mount": "/boot/efi", "fstype": "vfat"}, {"mount": "/", "fstype": "ext4"}],
}
CONTAINER = {"virtualization_tech_guest": ["container", "podman"], "mounts": []}


def settings(text):
    """Return the keys and values without comments."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.lstrip("-").split(" = ") for line in lines)


def test_machine_gets_all_kernel_settings(render):
    set_here = settings(render("base", SYSCTL, ansible_facts=MACHINE)).items()
    assert {"net.core.somaxconn": "4096", "vm.overcommit_memory": "1"}.items() <= set_here
    assert {"kernel.kptr_restrict": "2", "fs.suid_dumpable": "0"}.items() <= set_here


def test_container_gets_only_network_settings(render):
    text = render("base", SYSCTL, ansible_facts=CONTAINER)
    assert {key.split(".")[0] for key in settings(text)} == {"net"}
    assert "# not set in a container: vm.overcommit_memory = 1" in text
    assert "# not set in a container: kernel.kptr_restrict = 2" in text


def test_inventory_overrides_kernel_settings(render):
    router = {"net.ipv4.conf.all.rp_filter": 2, "net.ipv4.conf.default.send_redirects": 1}
    found = settings(render("base", SYSCTL, ansible_facts=MACHINE, base_kernel_settings=router))
    assert {found[f"net.ipv4.conf.{name}.rp_filter"] for name in ("all", "default", "*")} == {"2"}
    assert found["net.ipv4.conf.default.send_redirects"] == "1"
    assert found["net.ipv4.conf.*.send_redirects"] == found["kernel.sysrq"] == "0"


UPGRADES = "etc/apt/apt.conf.d/52flaskstack-upgrades.j2"


WINDOW = "etc/apt/apt.conf.d/53flaskstack-window.j2"
SYSTEMD = "etc/systemd/system"


def upgrades(render, tmp_path, *more, **settings):
    """Return apt's configuration with the upgrade settings, and those of more templates."""
    file = tmp_path / "apt.conf"
    distribution = 'Unattended-Upgrade::Origins-Pattern { "origin=Debian,label=Debian"; };\n'
    files = [render("base", name, **settings) for name in (UPGRADES, *more)]
    file.write_text("".join([distribution, *files]))
    dump = subprocess.run(
        ["apt-config", "dump"],
        env=os.environ | {"APT_CONFIG": str(file)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dump.stdout


def test_only_security_upgrades_are_automatic(render, tmp_path):
    dump = upgrades(render, tmp_path)
    assert 'APT::Periodic::Unattended-Upgrade "1";' in dump
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in dump
    origins = [line for line in dump.splitlines() if "Origins-Pattern:: " in line]
    assert len(origins) == 4
    assert all("security" in origin for origin in origins)


def test_upgrades_follow_the_inventory(render, tmp_path):
    dump = upgrades(
        render,
        tmp_path,
        base_unattended_upgrades=False,
        base_upgrade_reboot=True,
        base_upgrade_reboot_time="04:44",
        base_upgrade_excluded=["mariadb-"],
    )
    assert 'APT::Periodic::Unattended-Upgrade "0";' in dump
    assert 'Unattended-Upgrade::Automatic-Reboot "true";' in dump
    assert 'Unattended-Upgrade::Automatic-Reboot-Time "04:44";' in dump
    assert 'Unattended-Upgrade::Package-Blacklist:: "mariadb-";' in dump


def test_the_database_server_is_upgraded_in_the_window_only(render, tmp_path):
    """The service of the window sees another file instead of the one that holds the packages."""
    key = "Unattended-Upgrade::Package-"
    daily = upgrades(render, tmp_path, WINDOW, base_upgrade_excluded=["vim"])
    excluded, held = re.findall(f'{key}Blacklist:: "(.*)";', daily)
    assert excluded == "vim"
    for name in ("mariadb-server", "mysql-server-core-8.0", "mysql-community-server"):
        assert re.match(held, name)
    assert not re.match(held, "mariadb-common")
    window = upgrades(render, tmp_path, "etc/flaskstack/window.conf.j2")
    assert f"{key}Blacklist::" not in window
    assert f'{key}Whitelist:: "{held}";' in window
    service = render("base", f"{SYSTEMD}/restart-window.service.j2", base_unattended_upgrades=False)
    assert "ExecStart=/usr/bin/unattended-upgrade" not in service


def test_idle_timeout_of_login_shells_can_be_disabled(render):
    shell = "etc/profile.d/flaskstack.sh.j2"
    assert "readonly TMOUT=1800\n" in render("base", shell)
    assert "TMOUT" not in render("base", shell, base_shell_timeout=0)
    assert "ulimit" not in render("base", shell, base_core_dumps=True)


def test_journal_is_limited(render):
    text = render("base", "etc/systemd/journald.conf.d/flaskstack.conf.j2", base_journal_size=64)
    assert {"Storage=persistent", "SystemMaxUse=64M", "RateLimitBurst=10000"} <= set(
        text.splitlines()
    )


def test_swap_file_is_recreated_when_its_size_differs(render):
    text = render("base", "etc/systemd/system/swapfile.service.j2", base_swap_size=512)
    assert f"!= {512 * 1024 * 1024}'" in text
    assert "ExecStart=fallocate -l 512M /swapfile" in text


def test_core_dumps_can_be_allowed(render):
    for name, setting in {
        "systemd/system.conf.d/flaskstack.conf": "DefaultLimitCORE=0",
        "systemd/coredump.conf.d/flaskstack.conf": "ProcessSizeMax=0",
        "security/limits.d/60-flaskstack.conf": "* hard core 0",
    }.items():
        assert setting in render("base", f"etc/{name}.j2")
        assert setting not in render("base", f"etc/{name}.j2", base_core_dumps=True)


def test_invalid_settings_and_memory_are_rejected(evaluate):
    """See tests/plugins/test_host_checks.py for each check."""
    assert problems("base") == []
    local = {
        "flaskstack_base": {"app": "blog"},
        "flaskstack_base_blog": {"app": "blog", "memory": 1024},
    }
    given = {
        "ansible_facts": {"memtotal_mb": 1967, "ansible_local": local},
        "site_plan": {"host": {"memory": 1280}},
    }
    (setting, memory) = problems("base", base_umask="rwx", **given)
    assert setting.startswith("base_umask is rwx: ")
    assert memory.startswith("host_memory is 1280: ")
    assert evaluate("base", "__base_packages", **given) == []
    assert "acl" in evaluate("base", "__base_packages")


def test_all_services_report_failures_except_the_report_itself(render):
    """A drop-in of the more specific directory replaces one of the same name."""
    name = "flaskstack-failure.conf"
    units = "etc/systemd/system"
    everywhere = render("base", f"{units}/service.d/{name}.j2")
    assert "[Unit]\nOnFailure=flaskstack-failure@%n.service\n" in everywhere
    own = render("base", f"{units}/flaskstack-failure@.service.d/{name}.j2")
    assert not [line for line in own.splitlines() if line and not line.startswith("#")]
    unit = render("base", f"{units}/flaskstack-failure@.service.j2")
    assert {"Type=oneshot", "StartLimitIntervalSec=0"} < set(unit.splitlines())


def test_failure_settings(evaluate):
    given = {"base_failure_webhook": "https://hooks.example.org/a", "base_failure_interval": 5}
    found = evaluate("base", "__base_failure_settings", **given)
    assert found == {"command": [], "webhook": "https://hooks.example.org/a", "interval": 300}
    assert problems("base", **given) == []
    (message,) = problems("base", base_failure_webhook="ftp://example.org/")
    assert message.startswith("base_failure_webhook is ftp://example.org/: must be an http or")
