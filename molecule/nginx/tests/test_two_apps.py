"""Two inventories, one host."""

from __future__ import annotations

from asking import Site

testinfra_hosts = ["ansible://trixie"]


def test_each_app_has_its_own_name_upstream_and_log(address, site, certificate, logged):
    other = Site(address, "other.example.org", "", certificate("other")).get("/")
    assert other.status_code == 502
    entry = logged(other.headers["X-Request-ID"])
    assert (entry["app"], entry["upstream_addr"]) == ("other", "unix:/srv/other/web.sock")
    assert site.get("/").status_code == 200
