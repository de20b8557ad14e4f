"""Settings of a host: a container keeps its hands off what belongs to the machine."""

from __future__ import annotations

import pytest

SYSCTL = "etc/sysctl.d/60-flaskstack.conf.j2"
MACHINE = {
    "virtualization_tech_guest": ["kvm"],
    "mounts": [{"mount": "/boot/efi", "fstype": "vfat"}, {"mount": "/", "fstype": "ext4"}],
}
CONTAINER = {"virtualization_tech_guest": ["container", "podman"], "mounts": []}


def settings(text):
    """Return the keys and values that are set, without comments."""
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.lstrip("-").split(" = ") for line in lines)


def test_a_machine_gets_every_kernel_setting(render):
    assert settings(render("base", SYSCTL, ansible_facts=MACHINE)) == {
        "net.core.somaxconn": "4096",
        "vm.overcommit_memory": "1",
        "vm.swappiness": "10",
    }


def test_a_container_gets_only_those_of_its_own_network(render):
    text = render("base", SYSCTL, ansible_facts=CONTAINER)
    assert settings(text) == {"net.core.somaxconn": "4096"}
    assert "vm.overcommit_memory = 1" in text


def test_the_journal_is_limited(render):
    text = render("base", "etc/systemd/journald.conf.d/flaskstack.conf.j2", base_journal_size=64)
    assert {"Storage=persistent", "SystemMaxUse=64M", "RateLimitBurst=10000"} <= set(
        text.splitlines()
    )


@pytest.mark.parametrize(
    ("facts", "obstacle"),
    [
        (MACHINE, ""),
        (CONTAINER, "container"),
        (MACHINE | {"mounts": [{"mount": "/", "fstype": "btrfs"}]}, "btrfs"),
        (MACHINE | {"mounts": []}, "unknown"),
    ],
)
def test_swap_is_made_only_where_it_can_be(evaluate, facts, obstacle):
    said = evaluate("base", "__base_swap_obstacle", ansible_facts=facts)
    assert obstacle in said
    assert bool(said) == bool(obstacle)


def test_the_swap_file_is_made_anew_when_its_size_differs(render):
    text = render("base", "etc/systemd/system/swapfile.service.j2", base_swap_size=512)
    assert f"!= {512 * 1024 * 1024}'" in text
    assert "ExecStart=fallocate -l 512M /swapfile" in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("base_timezone", "../../etc/shadow"),
        ("base_timezone", ""),
        ("base_swap_size", -1),
        ("base_kernel_settings", {"net.core.somaxconn; reboot": 1}),
        ("base_journal_size", 0),
    ],
)
def test_settings_that_cannot_work_are_refused(evaluate, variable, value):
    refusals = evaluate("base", "__base_refusals", **{variable: value})
    assert len(refusals) == 1
    assert refusals[0].startswith(variable)


def test_the_defaults_are_accepted(evaluate):
    assert evaluate("base", "__base_refusals") == []


def shared(memory=2048, owner="blog", **others):
    """Return facts of a host on which other apps plan with so much memory each."""
    local = {
        f"flaskstack_base_{name}": {"app": name, "memory": size} for name, size in others.items()
    }
    local["flaskstack_base"] = {"app": owner}
    return {"memtotal_mb": memory, "ansible_local": local}


def planned(memory):
    """Return the plan of a site whose host is to have so much memory."""
    return {"site_plan": {"host": {"memory": memory}}}


def test_the_first_app_owns_the_host(evaluate):
    assert evaluate("base", "__base_owner") == "shop"
    assert evaluate("base", "__base_owner", ansible_facts=shared()) == "blog"


def test_an_app_alone_plans_with_what_it_likes(evaluate):
    facts = shared(owner="shop", shop=2048)
    assert evaluate("base", "__base_refusals", ansible_facts=facts, **planned(4096)) == []


def test_apps_share_the_memory(evaluate):
    facts = shared(1967, blog=1024)
    assert evaluate("base", "__base_refusals", ansible_facts=facts, **planned(1024)) == []
    (message,) = evaluate("base", "__base_refusals", ansible_facts=facts, **planned(1280))
    assert message.startswith("host_memory is 1280")
    assert "blog plans with 1024" in message
