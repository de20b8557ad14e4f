"""site.yml rejects invalid settings before it connects to any host.

The host of these inventories does not exist, and its facts come from a cache: a run that passed
the checks would end with "unreachable".
"""

import json
import shutil
import sys

import pytest

from helpers.playbook import run_playbook
from helpers.repository import ROOT, ansible_plugins

FACTS = {
    "_ansible_facts_gathered": True,
    "ansible_local": {},
    "ansible_env": {"SSH_CONNECTION": "198.51.100.7 50000 192.0.2.1 22"},
    "ansible_interfaces": [],
    "ansible_mounts": [],
    "ansible_user_id": "root",
    "ansible_distribution": "Debian",
    "ansible_distribution_major_version": "13",
    "ansible_distribution_release": "trixie",
    "ansible_distribution_version": "13.2",
    "ansible_memtotal_mb": 1960,
    "ansible_os_family": "Debian",
    "ansible_architecture": "x86_64",
    "ansible_python": {"version": {"major": 3, "minor": 13, "micro": 5}},
    "ansible_processor_vcpus": 2,
    "ansible_virtualization_tech_guest": ["kvm"],
}
TIERS = ("edge", "app", "database", "cache", "queue")
SECRET = "{{ lookup('ansible.builtin.password', inventory_dir ~ '/secrets/%s', length=40) }}"
SECRETS = (
    "app_secret_key",
    "app_database_password",
    "app_migration_password",
    "app_cache_password",
    "app_queue_password",
)
SITE = {
    "app_name": "shop",
    "app_domains": ["shop.example"],
    "app_wsgi": "shop.web:create_app()",
    "app_source_folder": str(ROOT / "sample_app"),
    "app_processes": [{"name": "worker", "command": "python -m shop.worker"}],
    **{name: SECRET % name for name in SECRETS},
}


def cached_facts(folder, *hosts):
    """Return the environment in which Ansible reads FACTS of these hosts from a cache."""
    cache = ansible_plugins().cache_loader.get("ansible.builtin.jsonfile", _uri=str(folder))
    for host in hosts:
        cache.set(host, FACTS)
    return {
        "ANSIBLE_CACHE_PLUGIN": "ansible.builtin.jsonfile",
        "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(folder),
    }


@pytest.fixture
def play(tmp_path):
    """Return a function that runs a playbook for one host with some settings."""

    def play(playbook, *options, more_hosts=None, **settings):
        inventory = tmp_path / "inventory"
        (inventory / "group_vars/all").mkdir(parents=True)
        settings = {name: value for name, value in (SITE | settings).items() if value is not None}
        (inventory / "group_vars/all/main.yml").write_text(json.dumps(settings))
        site = {tier: {"hosts": {"shop-1": {"ansible_host": "192.0.2.1"}}} for tier in TIERS}
        for tier in ("edge", "app"):
            site[tier]["hosts"] |= more_hosts or {}
        (inventory / "hosts.yml").write_text(json.dumps({"all": {"children": site}}))
        cache = cached_facts(tmp_path / "facts", *site["edge"]["hosts"])
        return run_playbook("--inventory", inventory, ROOT / playbook, *options, **cache)

    return play


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (
            {"app_https": "maybe", "gunicorn_log_level": "loud"},
            ["app_https is maybe: must be of type bool", "gunicorn_log_level is loud: must be one"],
        ),
        (
            {
                "app_prefix": "shop/",
                "app_database_password": "50%-more",
                "nginx_header_size": 16,
                "nginx_listen": [],
            },
            [
                "nginx_header_size is now app_header_size. Rename it in ",
                "app_prefix is shop/: must be empty, or begin with a slash",
                "app_database_password: must consist of letters",
                "/secrets/database.txt', length=40, chars=['ascii_letters', 'digits']",
                "nginx_listen is []: ",
            ],
        ),
    ],
    ids=["specs", "checks"],
)
def test_all_invalid_settings_are_reported_before_any_connection(
    play, tmp_path, settings, messages
):
    code, output = play("site.yml", **settings)
    assert code
    for message in messages:
        assert message in output
    assert "unreachable=0 failed=1" in output
    assert f"{tmp_path}/inventory/group_vars/all/main.yml" in output


def test_all_problems_of_the_plan_are_reported_together(play):
    _, output = play(
        "site.yml",
        app_name=None,
        request_timeout=0,
        app_database_pool_size=400,
        app_database_pool_recycle=7200,
    )
    for message in (
        "app_name: must be set",
        "for example: app_name: shop",
        "request_timeout is 0: must be a whole number of seconds from 5 to 600",
        "for example: request_timeout: 30",
        "app_database_pool_size is 400: ",
        "for example: app_database_pool_size: 4",
        "app_database_pool_recycle is 7200: must be shorter than mysql_wait_timeout (3600)",
        "for example: app_database_pool_recycle: 1800",
    ):
        assert message in output
    assert "unreachable=0 failed=1" in output


def test_invalid_setting_of_one_host_stops_all(play):
    _, output = play("site.yml", more_hosts={"shop-2": {"app_prefix": "shop/"}})
    assert "app_prefix is shop/: " in output
    assert "unreachable=1" not in output


def test_app_host_without_firewall_addresses_stops_all(play, tmp_path):
    """The firewall of the database host would drop its connections."""
    second = {"shop-2": {"ansible_host": "192.0.2.2", "firewall_addresses": ["2001:db8::2"]}}
    _, output = play("site.yml", more_hosts=second, mysql_bind_address="192.0.2.1")
    output = " ".join(output.split())
    assert "firewall_addresses is [2001:db8::2]: must have, for shop-2, an address" in output
    assert "connect to MySQL or Redis on shop-1, of the same IP version" in output
    assert f"Set it in {tmp_path}/inventory/host_vars/shop-2.yml, for example: " in output
    assert "firewall_addresses: [10.0.0.5]" in output
    assert "unreachable=1" not in output


def test_plan_of_a_valid_inventory_is_printed(play):
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    code, output = play("playbooks/plan.yml", ansible_become=False, **here)
    assert code == 0, output
    for line in (
        "Timeouts, seconds variable shop-1",
        "response to nginx nginx_proxy_read_timeout 35",
        "memory, MiB host_memory 1960",
        "MySQL connections mysql_max_connections 42",
    ):
        assert f" {line} " in output


@pytest.mark.parametrize(
    "setting",
    [
        {"app_source_git": "https://me:Tok3nOfMine@127.0.0.1:9/shop.git", "app_source_folder": ""},
        {"app_source_archive": "https://Tok3nOfMine@127.0.0.1:9/a.tgz", "app_source_folder": ""},
        {"app_index_url": "https://me:Tok3nOfMine@127.0.0.1:9/simple", "app_requirements": "r.in"},
    ],
    ids=["git", "archive", "index"],
)
def test_login_in_a_url_is_not_shown(play, tmp_path, setting):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/r.in").write_text("flask\ngunicorn\n")
    folder = {"app_source_folder": str(tmp_path / "app")}
    checksum = {"app_source_checksum": "sha256:" + "0" * 64}
    code, output = play("playbooks/plan.yml", "-vvv", **folder | checksum | setting)
    assert code
    assert "127.0.0.1:9/" in output
    assert "Tok3nOfMine" not in output


@pytest.mark.parametrize("name", ["gallery", "notes"])
def test_example_without_its_app_is_valid(tmp_path, name):
    """Scenario examples deploys the other examples, whose apps are in the repository."""
    inventory = tmp_path / name
    shutil.copytree(ROOT / f"inventory/{name}.example", inventory)
    variables = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
        "app_source_git": "",
        "app_source_folder": str(ROOT / "sample_app"),
        "app_requirements": "requirements.lock",
        "app_extra_requirements": [],
    }
    options = ("--inventory", inventory, "--extra-vars", json.dumps(variables))
    cache = cached_facts(tmp_path / "facts", f"{name}-1")
    code, output = run_playbook(*options, ROOT / "playbooks/plan.yml", **cache)
    assert code == 0, output
