"""Paths that a setting must not name are found, and others are left alone."""

import pytest

from paths import leaving, not_for_apps, overlapping

ROOT = "/srv/shop"


@pytest.mark.parametrize("path", ["", ".", "a/..", "..", "../a", "a/../../b", "/a", "//a", "a\n"])
def test_a_path_that_leaves_the_release(path):
    assert leaving([path]) == [path]


@pytest.mark.parametrize("path", [".venv", ".venv/lib", "./.venv", ".release.env"])
def test_a_path_that_makes_the_release(path):
    assert leaving([path]) == [path]


@pytest.mark.parametrize("path", ["a", "a/", "a/../b", "..a", ".env", "a b/c", ".venv2"])
def test_a_path_inside_the_release(path):
    assert leaving([path]) == []


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a", "b/c", "ab"], []),
        (["a", "a/"], ["a"]),
        (["data/x", "data"], ["data/x"]),
        (["a", "b/../a/c"], ["a/c"]),
    ],
)
def test_paths_that_overlap(paths, found):
    assert overlapping(paths) == found


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/etc/shop", "/home/shop", "/usr/local/shop", "/tmp/x", "/run/shop"),
        *("/srv", "/var", "/var/log", "/mnt", "/srv/../etc/x"),
        *("/srv/shop", "/srv/shop/releases", "/srv/shop/shared", "/srv/shop/shared/../current"),
        *("/srv/a b", "/srv/%i", "/srv/a\nReadWritePaths=/etc"),
    ],
)
def test_a_folder_that_is_not_the_apps(path):
    assert not_for_apps([path], ROOT) == [path]


@pytest.mark.parametrize("path", ["/srv/data", "/mnt/x", "/var/spool/shop", "/srv/shop/shared/x"])
def test_a_folder_of_the_apps_own(path):
    assert not_for_apps([path], ROOT) == []


def test_an_app_may_not_own_what_it_is_in():
    assert not_for_apps(["/data/web", "/data/web/files"], "/data/web/shop") == ["/data/web"]
