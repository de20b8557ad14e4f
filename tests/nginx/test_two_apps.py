"""Two apps on one host."""

from __future__ import annotations

import pytest

from helpers.clients import Site

pytestmark = pytest.mark.parametrize("server", ["balanced"], indirect=True, scope="session")


def test_each_app_has_its_own_host_name_upstream_and_log(server, site, logged):
    ca = str(server.certificate("other"))
    other = Site(f"{server.address}:{server.https}", "other.example.org", "", ca).get("/")
    assert other.status_code == 502
    entry = logged(other.headers["X-Request-ID"])
    upstream = f"unix:{server.path('/srv/other/web.sock')}"
    assert (entry["app"], entry["upstream_addr"]) == ("other", upstream)
    assert site.get("/").status_code == 200
