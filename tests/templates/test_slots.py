"""The two slots that releases use alternately."""

from __future__ import annotations

import pytest

APP = {"app_wsgi": "shop.web:create_app()", "app_secret_key": "k3Yq8ZpW0vXr6TtB1nMc4JdL7sHf2GaU"}
UNITS = "units"


@pytest.fixture
def unit(render):
    """Return a function that returns the settings of a unit: name → list of values."""

    def unit(name):
        settings = {}
        for line in render("gunicorn", f"{UNITS}/{name}.j2", **APP).splitlines():
            if "=" in line and not line.startswith("#"):
                key, value = line.split("=", 1)
                settings.setdefault(key, []).append(value)
        return settings

    return unit


@pytest.mark.parametrize("name", ["web@.service", "web@.socket"])
def test_slot_is_enabled_by_its_link(unit, name):
    assert unit(name)["ConditionPathExists"] == ["/srv/shop/instances/%i"]


def test_slot_runs_the_release_and_settings_of_its_links(unit):
    web = unit("web@.service")
    assert web["WorkingDirectory"] == ["/srv/shop/instances/%i"]
    gunicorn = "/srv/shop/instances/%i/.venv/bin/gunicorn --config"
    assert web["ExecStart"] == [f"{gunicorn} /etc/shop/slots/%i/gunicorn.conf.py"]
    environments = ["/etc/shop/slots/%i/environment", "-/srv/shop/instances/%i/.release.env"]
    assert web["EnvironmentFile"] == environments
    assert "/etc/shop/slots/%i/files:/etc/shop/files" in web["BindReadOnlyPaths"]
    (path,) = [value for value in web["Environment"] if value.startswith("PATH=")]
    assert path.startswith("PATH=/srv/shop/instances/%i/.venv/bin:")
    assert not [value for values in web.values() for value in values if "/current" in value]


def test_each_slot_has_its_own_socket(unit):
    assert unit("web@.socket")["ListenStream"] == ["/run/shop/%i.sock"]


def test_target_wants_both_slots(unit):
    units = " ".join(unit("app.target")["Wants"]).split()
    kinds = [f"shop-web@{slot}.{kind}" for slot in "ab" for kind in ("socket", "service")]
    assert [name for name in units if "-web@" in name] == kinds


def test_nginx_uses_the_link_and_no_slot(evaluate):
    assert evaluate("nginx", "nginx_upstreams") == ["unix:/srv/shop/web.sock"]
