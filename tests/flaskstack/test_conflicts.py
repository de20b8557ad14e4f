"""Names that others use on a host are rejected, and the app's own names are accepted."""

import json
import pwd
import re
import subprocess
import sys

import pytest

from flaskstack import conflicts
from flaskstack.errors import ValidationError
from helpers.repository import ROOT

UNIT = "# Ansible managed\n[Unit]\nDescription=Of {0}\n"
UNITS, SYSTEMS = "etc/systemd/system", "usr/lib/systemd/system"
SITES, TMPFILES = "etc/nginx/sites-enabled", "tmpfiles.d/shop.conf"
# Files that the roles leave for an installed app `shop`, including those of an older version.
OWN = {
    "etc/tmpfiles.d/shop.conf": "# Ansible managed\nd /etc/shop 0750\nd /srv/shop 0755\n"
    "d /var/lib/shop 0750\n",
    "etc/shop/settings/1/environment": "",
    "var/lib/shop/state": "",
    "srv/shop/releases/1/app.py": "",
    "srv/shop/other": "",
    f"{UNITS}/shop.target": UNIT.format("shop"),
    f"{UNITS}/shop-worker@.service": "[Service]\nSlice=shop-processes.slice\n",
    f"{UNITS}/shop-nightly.timer": "[Unit]\nPartOf=shop.target\n",
    f"{UNITS}/shop-certificate.timer": UNIT.format("shop"),
    f"{SITES}/shop.conf": "# Ansible managed\nupstream app_shop {}\n# of shop\n"
    "listen 80;\nserver_name shop.example;\n",
    "etc/redis/redis-shop-cache.conf": "# Ansible managed\ndir /var/lib/redis/shop-cache\n",
    "etc/fail2ban/jail.d/shop.conf": "# Ansible managed\n[shop-probes]\n",
    # Files of others with similar names or content.
    f"{UNITS}/shop-backup.service": "",
    f"{UNITS}/shop.service": "",
    "etc/redis/redis-shop-sessions.conf": "",
    "usr/lib/tmpfiles.d/shopping.conf": "",
    f"{SITES}/blog.conf": "listen 80;\nserver_name blog.example;\n",
    f"{SITES}/old": "listen 8080;\nserver_name shop.example;\n",
}


@pytest.fixture
def find(tmp_path, monkeypatch):
    """Return a function that checks a host with files, and returns the error message."""
    monkeypatch.setattr(conflicts, "ROOT", tmp_path)

    def find(files, **params):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        known = {"app": "shop", "user": "shop", "root": "/srv/shop", "folders": []}
        known |= {"groups": ["all", "app", "edge", "cache", "database"], "settings": "all/main.yml"}
        known |= {"units": ["shop-worker@1.service", "shop-nightly.timer"], "listen": ["80"]}
        known |= {"domains": ["shop.example"], "database": "shop", "accounts": ["shop"]}
        try:
            conflicts.find(known | params)
        except ValidationError as error:
            return str(error)
        return ""

    return find


@pytest.mark.parametrize("files", [{}, OWN], ids=["bare", "installed"])
def test_free_names_and_the_apps_own_names_are_accepted(find, files):
    assert find(files) == ""


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        (f"{SYSTEMS}/shop.target", UNIT.format("shop"), "app_name is shop: shop.target is a unit"),
        (f"{UNITS}/shop-nightly.service", "", "app_processes is nightly: "),
        (f"{UNITS}/shop-certificate.service", "", "shop-certificate.service exists"),
        (f"{UNITS}/shop.target", UNIT.format("shopping"), "shop.target exists already"),
        (f"usr/lib/{TMPFILES}", OWN[f"etc/{TMPFILES}"], "usr/lib/tmpfiles.d/shop"),
        (f"etc/{TMPFILES}", "d /etc/shop\n", "etc/tmpfiles.d/shop.conf"),
        ("etc/shop/shop.conf", "", "app_name is shop: /etc/shop exists .* sudo mv /etc/shop "),
        ("srv/shop/app.py", "", "app_root is /srv/shop: "),
        (f"{SITES}/shop.conf", "server {}", "sites-enabled/shop.conf"),
        (
            f"{SITES}/old",
            "server {\n  listen 80 default_server;\n  server_name a  shop.example;\n}",
            "app_domains is shop.example: .*/old answers",
        ),
        (
            "etc/tmpfiles.d/blog.conf",
            "d /etc/blog 0750\nd /srv/shop/blog 0755\n",
            "app_root is /srv/shop: it is a folder of blog's, or holds one",
        ),
    ],
)
def test_names_of_others_are_rejected(find, path, text, message):
    """A file in a directory of packages is not the app's, whatever its content."""
    assert re.search(message, find({path: text}))


def test_a_restored_folder_belongs_to_the_app(find):
    assert find({"srv/shop/shared/uploads/1.jpg": "", "srv/shop/lost+found/x": ""}) == ""


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"user": "daemon"}, "app_user is daemon: the user daemon exists already"),
        ({"user": "disk"}, "app_user is disk: the group disk exists already"),
        ({"user": "root"}, "app_user is root"),
        ({"folders": ["/etc"]}, "app_writable_paths is /etc: /etc .*root's and not empty"),
        (
            {"folders": ["/srv/blog/x"]},
            "/srv/blog/x: it is a folder of blog's",
        ),
    ],
)
def test_system_accounts_and_folders_are_rejected(find, params, message):
    blog = {"etc/tmpfiles.d/blog.conf": "d /etc/blog 0750\nd /srv/blog 0755\n"}
    assert re.search(message, find(blog, **params))


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("App shop,,,", ""),
        ("App blog", "its comment is 'App blog'"),
        ("Builds of shop", "usermod --comment 'App shop' daemon"),
    ],
)
def test_an_account_is_recognized_by_its_comment(find, monkeypatch, comment, message):
    known = pwd.getpwnam("daemon")
    account = {"daemon": pwd.struct_passwd((*known[:4], comment, *known[5:]))}
    monkeypatch.setattr(conflicts.pwd, "getpwnam", account.__getitem__)
    answer = find({"srv/shop/releases/x": "", "srv/shop/web.sock": ""}, user="daemon")
    assert message in answer
    assert bool(answer) == bool(message)  # with its account, the folder belongs to the app too


def test_databases_and_accounts_of_others_are_rejected(find, tmp_path, monkeypatch):
    there = {"SHOW DATABASES": {"shop", "mysql"}, "SELECT DISTINCT user FROM mysql.user": {"root"}}
    monkeypatch.setattr(conflicts, "ask_server", there.__getitem__)
    assert "app_database_name is shop: the server has a database" in find({})
    assert "app_database_user is root" in find({}, database="new", accounts=["root", "shop"])
    assert find({"etc/ansible/facts.d/flaskstack_mysql_blog.fact": '{"database": "shop"}'}) == ""
    assert "app_database_user is root" in find({}, accounts=["root"])
    assert find({"etc/ansible/facts.d/flaskstack_mysql_shop.fact": "{}"}, accounts=["root"]) == ""


def test_ansible_can_call_the_check(tmp_path):
    """Also in check mode, where nothing is installed."""
    params = {"app": "shop", "user": "daemon", "root": "/srv/shop", "groups": ["app"]}
    params |= {"folders": [], "units": [], "settings": "main.yml", "check": True}
    result = subprocess.run(
        [sys.executable, ROOT / "roles/release/files/flaskstack", "call", "conflicts"],
        input=json.dumps(params),
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT / "roles/release/files")},
    )
    assert "app_user is daemon" in json.loads(result.stdout)["msg"], result.stderr
