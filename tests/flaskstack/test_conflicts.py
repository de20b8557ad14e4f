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
SITES = "etc/nginx/sites-enabled"
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
    "usr/lib/sysusers.d/basic.conf": 'g shopping 7\nu games 5:60 - /usr/games\n"shop"\n',
    f"{SITES}/blog.conf": "listen 80;\nserver_name blog.example;\n",
    f"{SITES}/old": "listen 8080;\nserver_name shop.example;\n",
}


@pytest.fixture
def look(tmp_path, monkeypatch):
    """Return a function that checks a host with files, and returns the error message."""
    monkeypatch.setattr(conflicts, "ROOT", tmp_path)

    def look(files, **params):
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

    return look


@pytest.mark.parametrize("files", [{}, OWN], ids=["bare", "installed"])
def test_free_names_and_the_apps_own_names_are_accepted(look, files):
    assert look(files) == ""


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        (
            f"{SYSTEMS}/shop.target",
            UNIT.format("shop"),
            "name is shop: shop.target",
        ),
        ("run/systemd/system/shop.slice", "", "shop.slice is a unit of the system's"),
        (
            f"{UNITS}/shop-nightly.service",
            "",
            "app_processes is nightly: ",
        ),
        (
            f"{UNITS}/shop-nightly.timer",
            UNIT.format("shop"),
            "app_processes is nightly",
        ),
        (f"{UNITS}/shop-certificate.service", "", "shop-certificate.service exists"),
        (f"{UNITS}/shop.target", UNIT.format("shopping"), "shop.target exists already"),
        (
            "usr/lib/tmpfiles.d/shop.conf",
            OWN["etc/tmpfiles.d/shop.conf"],
            "usr/lib/tmpfiles.d/shop",
        ),
        ("etc/tmpfiles.d/shop.conf", "d /etc/shop\n", "etc/tmpfiles.d/shop.conf"),
        ("usr/lib/sysusers.d/shop.conf", "u shop - -\n", "app_user is shop: a package"),
        ("usr/lib/sysusers.d/shop.conf", "g  shop-redis 7\n", "shop-redis: a package"),
        ("etc/shop/shop.conf", "", "app_name is shop: /etc/shop exists .* sudo mv /etc/shop "),
        ("var/lib/shop/data", "", "/var/lib/shop exists already"),
        ("srv/shop/app.py", "", "app_root is /srv/shop: "),
        (f"{SITES}/shop.conf", "server {}", "sites-enabled/shop.conf"),
        (
            f"{SITES}/old",
            "server {\n  listen 80 default_server;\n  server_name a  shop.example;\n}",
            "app_domains is shop.example: .*/old answers",
        ),
        ("etc/redis/redis-shop-queue.conf", "", "redis-shop-queue.conf"),
        ("etc/fail2ban/jail.d/shop.conf", "", "jail.d/shop.conf"),
        (
            "etc/tmpfiles.d/blog.conf",
            "d /etc/blog 0750\nd /srv/shop/blog 0755\n",
            "app_root is /srv/shop: it is a folder of blog's, or holds one",
        ),
    ],
)
def test_names_of_others_are_rejected(look, path, text, said):
    """In directories of packages, a file that looks like ours is not ours."""
    assert re.search(said, look({path: text}))


def test_a_restored_folder_belongs_to_the_app(look):
    assert look({"srv/shop/shared/uploads/1.jpg": "", "srv/shop/lost+found/x": ""}) == ""


@pytest.mark.parametrize(
    ("params", "said"),
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
def test_system_accounts_and_folders_are_rejected(look, params, said):
    blog = {"etc/tmpfiles.d/blog.conf": "d /etc/blog 0750\nd /srv/blog 0755\n"}
    assert re.search(said, look(blog, **params))


@pytest.mark.parametrize(
    ("comment", "said"),
    [
        ("App shop", ""),
        ("App shop,,,", ""),
        ("App blog", "its comment is 'App blog'"),
        ("Builds of shop", "usermod --comment 'App shop' daemon"),
        ("", "the user daemon exists already and is not this app's"),
    ],
)
def test_an_account_is_recognized_by_its_comment(look, monkeypatch, comment, said):
    known = pwd.getpwnam("daemon")
    fields = (*known[:4], comment, *known[5:])
    account = {"daemon": pwd.struct_passwd(fields)}
    monkeypatch.setattr(conflicts.pwd, "getpwnam", account.__getitem__)
    answer = look({"srv/shop/releases/x": "", "srv/shop/web.sock": ""}, user="daemon")
    assert said in answer
    assert bool(answer) == bool(said)  # with its account, the folder belongs to the app too


def test_databases_and_accounts_of_others_are_rejected(look, tmp_path, monkeypatch):
    there = {"SHOW DATABASES": {"shop", "mysql"}, "SELECT DISTINCT user FROM mysql.user": {"root"}}
    monkeypatch.setattr(conflicts, "ask_server", there.__getitem__)
    assert "app_database_name is shop: the server has a database" in look({})
    assert "app_database_user is root" in look({}, database="new", accounts=["root", "shop"])
    assert look({"etc/ansible/facts.d/flaskstack_mysql_blog.fact": '{"database": "shop"}'}) == ""
    assert "app_database_user is root" in look({}, accounts=["root"])
    assert look({"etc/ansible/facts.d/flaskstack_mysql_shop.fact": "{}"}, accounts=["root"]) == ""


def test_ansible_can_call_the_check(tmp_path):
    """Also in check mode, where nothing is installed."""
    params = {"app": "shop", "user": "daemon", "root": "/srv/shop", "groups": ["app"]}
    params |= {"folders": [], "units": [], "settings": "main.yml", "check": True}
    done = subprocess.run(
        [sys.executable, ROOT / "roles/release/files/flaskstack", "call", "conflicts"],
        input=json.dumps(params),
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT / "roles/release/files")},
    )
    assert "app_user is daemon" in json.loads(done.stdout)["msg"], done.stderr
