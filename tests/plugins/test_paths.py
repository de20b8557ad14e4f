"""Invalid paths are found, and valid ones are accepted."""

import pytest

from paths import (
    forbidden_paths,
    hidden_paths,
    invalid_roots,
    outermost,
    outside_release,
    overlapping,
)

ROOT = "/srv/shop"


@pytest.mark.parametrize("path", ["", ".", "a/..", "..", "../a", "a/../../b", "/a", "//a", "a\n"])
def test_path_outside_the_release(path):
    assert outside_release([path]) == [path]


@pytest.mark.parametrize("path", [".venv", ".venv/lib", "./.venv", ".release.env"])
def test_path_that_the_release_role_creates(path):
    assert outside_release([path]) == [path]


@pytest.mark.parametrize("path", ["a", "a/", "a/../b", "..a", ".env", "a b/c", ".venv2"])
def test_path_inside_the_release(path):
    assert outside_release([path]) == []


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a", "b/c", "ab"], []),
        (["a", "a/"], ["a"]),
        (["data/x", "data"], ["data/x"]),
        (["a", "b/../a/c"], ["a/c"]),
    ],
)
def test_overlapping_paths(paths, found):
    assert overlapping(paths) == found


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/etc/shop", "/home/shop", "/usr/local/shop", "/tmp/x", "/run/shop"),
        *("/srv", "/var", "/var/log", "/mnt", "/srv/../etc/x"),
        *("/srv/shop", "/srv/shop/releases", "/srv/shop/shared", "/srv/shop/shared/../current"),
        *("/srv/a b", "/srv/%i", "/srv/a\nReadWritePaths=/etc"),
        *("/var/lib/mysql", "/var/lib/flaskstack/x", "/var/log/nginx", "/var/spool/shopping"),
        *("/var/backups/shop", "/var/tmp/shop", "/var/cache/shop-build", "/var/lib/../lib/mysql"),
    ],
)
def test_directory_that_an_app_must_not_write_to(path):
    assert forbidden_paths([path], ROOT, "shop") == [path]


@pytest.mark.parametrize(
    "path",
    [
        *("/srv/data", "/mnt/x", "/srv/shop/shared/x", "/var/www/shop"),
        *("/var/spool/shop", "/var/log/shop/x", "/var/lib/shop/x"),
    ],
)
def test_directory_that_an_app_may_write_to(path):
    assert forbidden_paths([path], ROOT, "shop") == []


def test_app_must_not_own_the_parent_of_its_root():
    paths = ["/data/web", "/data/web/files"]
    assert forbidden_paths(paths, "/data/web/shop", "shop") == ["/data/web"]


@pytest.mark.parametrize(
    "path",
    [
        *("/home/deploy/shop", "/root/shop", "/run/shop", "/tmp/shop", "/usr/share/shop", "/etc/x"),
        *("/", "/srv", "/opt", "/var", "/var/www", "/mnt", "//srv/shop", "/srv/../etc/shop"),
        *("/var/lib/shop", "/var/cache/shop", "/var/backups/shop", "/var/tmp/shop"),
        *("/srv/my app", "srv/shop", "", "/srv/shop/", "/srv/./shop", "/srv/shop\n", "/srv/%n"),
    ],
)
def test_invalid_app_root(path):
    assert invalid_roots([path]) == [path]


@pytest.mark.parametrize("path", ["/srv/shop", "/opt/shop", "/data/web/shop_2", "/var/www/a.b"])
def test_valid_app_root(path):
    assert invalid_roots([path]) == []


@pytest.mark.parametrize("path", ["/home/x", "/root", "/run/user/1000", "/srv/../home/x", "/a/.."])
def test_path_hidden_from_the_app(path):
    assert hidden_paths([path]) == [path]


@pytest.mark.parametrize("path", ["/srv/films", "/mnt/a/", "/homes", "/run/postgresql", "/srv/..a"])
def test_path_visible_to_the_app(path):
    assert hidden_paths([path]) == []


def test_outermost_paths():
    """The app could place links below its directories, which root must not follow."""
    paths = ["/data/shop/a/b", "/data/shop", "/data/shop/", "/data/shop2", "/var/lib/shop/x"]
    assert outermost(["/b", "/a"]) == ["/b", "/a"]
    assert outermost(paths, ["/var/lib/shop"]) == ["/data/shop", "/data/shop2"]
