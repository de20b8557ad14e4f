"""Static files, proxied requests, rejected requests and error pages."""

from __future__ import annotations

import os
import socket
import uuid
from functools import partial
from pathlib import Path

import pytest
import requests

from helpers.clients import Site
from helpers.wait import wait_for


def test_app_receives_paths_without_the_prefix(bare, site, prefix):
    assert site.get("/notes?page=2").json()["path"] == "/notes?page=2"
    if prefix:
        assert bare.get(f"{prefix}?page=2").headers["Location"] == f"{prefix}/?page=2"
        assert bare.get("/notes").status_code == 404


@pytest.mark.parametrize(
    "request_line",
    ["GET / HTTP/1.1\r\nHost: evil.example", "GET / HTTP/1.1\r\nHost: 127.0.0.1", "GET / HTTP/1.0"],
)
def test_other_host_names_are_rejected_and_logged(server, raw, request_line):
    agent = uuid.uuid4().hex
    plain = partial(socket.create_connection, (server.address, server.http), 10)
    assert raw(f"{request_line}\r\nUser-Agent: {agent}\r\n\r\n".encode(), plain) == b""
    wait_for(lambda: any(agent in line for line in server.log()), every=0.02)


def test_version_is_hidden(site, raw):
    assert site.get("/").headers["Server"] == "nginx"
    assert b"nginx/" not in raw(b"nonsense\r\n\r\n")


def test_access_log_has_one_json_object_per_request_with_upstream_times(server, site, logged):
    agent = 'a "quoted" \\ agent {} é'.encode()
    entry = logged(site.get("/notes", headers={"User-Agent": agent}).headers["X-Request-ID"])
    assert entry["user_agent"].startswith('a "quoted" \\ agent {}')
    assert entry["status"] == 200
    assert entry["upstream_addr"] == f"unix:{server.path('/srv/shop/web.sock')}"
    for name in ("upstream_connect_time", "upstream_header_time", "upstream_response_time"):
        assert 0 <= float(entry[name]) <= 2


def test_large_body_does_not_change_other_headers(site, headers):
    small, large = (
        headers(site.post("/notes?a=1", data=b"x" * size, headers={"X-Own": "a"}).json())
        for size in (100, 20_000)
    )
    for name in ("content-length", "x-request-id"):
        assert small.pop(name) != large.pop(name)
    assert large == small
    answer = site.post("/download/files/a%20b.txt", data=b"x" * 20_000)
    assert answer.text == "0123456789"


def test_each_listen_address_is_served(server, app, https, name, prefix):
    answer = Site(f"{server.address}:{server.second}", name, prefix).get("/")
    assert answer.status_code == (308 if https else 200)


@pytest.mark.parametrize("server", ["balanced"], indirect=True, scope="session")
def test_each_app_has_its_own_host_name_upstream_and_log(server, logged):
    ca = str(server.certificate("other"))
    other = Site(f"{server.address}:{server.https}", "other.example.org", "", ca).get("/")
    assert other.status_code == 502
    entry = logged(other.headers["X-Request-ID"])
    upstream = f"unix:{server.path('/srv/other/web.sock')}"
    assert (entry["app"], entry["upstream_addr"]) == ("other", upstream)


class TestStaticFiles:
    """Static files are served from the release, not by the app."""

    @pytest.fixture
    def put(self, server):
        """Return a function that creates a file in the release and returns its URL."""

        def put(name, folder="releases/2/shop/static"):
            file = server.path(f"/srv/shop/{folder}/{name}")
            file.parent.mkdir(exist_ok=True)
            with file.open("a") as text:
                text.write("text")
            return f"/static/{name}"

        return put

    @pytest.mark.parametrize(
        "path", ["a.css?a=1&h=ab12", "js/app.3f2a9b8c.js", "5d41402abc4b2a76.css", "i-BkL2dCpF.js"]
    )
    def test_files_with_versioned_urls_are_cached(self, site, put, path):
        put(path.partition("?")[0])
        answer = site.get(f"/static/{path}")
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"

    @pytest.mark.parametrize(
        "path", ["site.css?x=2", "site.css?v=", "a-20260101.css", "a-UserList.js", "a-IMG_2041.js"]
    )
    def test_other_files_are_revalidated(self, site, put, path):
        put(path.partition("?")[0])
        answer = site.get(f"/static/{path}", headers={"Accept-Encoding": "identity"})
        assert answer.headers["Cache-Control"] == "no-cache"
        assert len(answer.headers["X-Request-ID"]) == 32
        again = site.get(f"/static/{path}", headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status_code == 304

    @pytest.mark.parametrize(
        ("file", "expected"),
        [
            ("a.mjs", "text/javascript; charset=utf-8"),
            ("a.js", "application/javascript; charset=utf-8"),
            ("a.webmanifest", "application/manifest+json"),
            ("a.html", "text/html; charset=utf-8"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
            ("a.unknown", "application/octet-stream"),
        ],
    )
    def test_content_type_and_charset(self, site, put, file, expected):
        assert site.get(put(file)).headers["Content-Type"] == expected
        put(file, "shared/uploads/public")
        assert site.get(f"/media/{file}").headers["Content-Type"] == expected

    def test_missing_file_is_not_cached(self, site):
        answer = site.get("/static/missing.css")
        assert answer.status_code == 404
        assert "Cache-Control" not in answer.headers

    def test_files_of_the_previous_release_are_served(self, site):
        assert site.get("/static/before.js").text == "before"
        assert site.get("/static/site.css").text != "before"

    def test_pattern_selects_single_files(self, site):
        answer = site.get("/robots.txt")
        assert answer.text == "User-agent: *"
        assert answer.headers["Cache-Control"] == "public, max-age=60"
        assert site.get("/robotsxtxt").json()["path"] == "/robotsxtxt"

    @pytest.mark.parametrize(
        "path",
        [
            "/static/.hidden",
            "/media../beside.txt",
            "/media/..%2fbeside.txt",
            "/static/%2ehidden",
            "/static../beside.txt",
            "/static/..%2fbeside.txt",
            "/static/%2e%2e/beside.txt",
            "/static/..\\beside.txt",
        ],
    )
    def test_hidden_files_and_path_traversal_are_rejected(self, raw, prefix, path):
        answer = raw(f"GET {prefix}{path} HTTP/1.0\r\nHost: shop.example.org\r\n\r\n".encode())
        assert answer.startswith(b"HTTP/1.1 ")
        assert b"not for the world" not in answer


@pytest.mark.parametrize("path", ["/static/site.css", "/large"])
def test_text_is_compressed_if_the_client_accepts_gzip(site, path):
    compressed = site.get(path, headers={"Accept-Encoding": "gzip"})
    plain = site.get(path, headers={"Accept-Encoding": "identity"})
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert compressed.headers["Vary"] == "Accept-Encoding"
    assert "Content-Encoding" not in plain.headers
    assert compressed.text == plain.text


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics?x=1", "//metrics", "/%6detrics", "/metrics/", "/metrics/x"]
)
def test_metrics_are_not_public(site, logged, path):
    answer = site.get(path)
    assert answer.status_code == 404
    assert logged(answer.headers["X-Request-ID"])["upstream_addr"] == ""  # the app was not asked
    assert site.get("/metricsx").status_code == 200


def test_numbers_of_nginx_are_only_on_a_socket(site, server):
    path = server.path("/var/lib/flaskstack/nginx/status.sock")
    assert b"Active connections" in over_socket(path, "/stub_status")
    assert b"404" in over_socket(path, "/").splitlines()[0]
    assert "Active connections" not in site.get("/stub_status").text


def over_socket(path, url):
    """Return the answer of a server on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(f"GET {url} HTTP/1.0\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_uploads_are_accepted_up_to_the_limit(site):
    size = 2**20
    assert site.post("/", data=b"x" * size).json()["body"] == size
    answer = site.post("/", data=b"x" * (size + 1))
    assert answer.status_code == 413
    assert "takes up to 1 MiB" in answer.text
    assert answer.headers["X-Request-ID"] in answer.text


class TestLinks:
    """Links that the app creates to files of another user are not followed."""

    @pytest.fixture
    def link(self, server):
        """Return a function that creates a link below /srv/shop, as the app would."""
        links = []

        def create(name, target):
            path = server.path(f"/srv/shop/{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
            # Root must not own the link, since nginx follows links if the owners match.
            if os.geteuid() == 0:
                os.lchown(path, 65534, 65534)
            links.append(path)

        yield create
        for path in filter(Path.is_symlink, links):
            path.unlink()

    @pytest.mark.parametrize(
        "url", ["/media/{}", "/download/files/{}", "/download/elsewhere/{}", "/static/uploads/{}"]
    )
    @pytest.mark.parametrize(("target", "below"), [("/etc/passwd", ""), ("/etc", "/passwd")])
    def test_link_to_a_file_or_directory_of_another_user(self, site, link, url, target, below):
        for folder in ("shared/uploads/public", "shared/uploads/private", "../elsewhere/a"):
            link(f"{folder}/link", target)
        link("releases/2/shop/static/uploads", "../../../../shared/uploads/public")
        assert site.get(url.format(f"link{below}")).status_code in (403, 404)

    @pytest.mark.parametrize(
        ("folder", "url"),
        [("shared/uploads/public", "/media/"), ("../elsewhere/a", "/download/elsewhere/")],
    )
    def test_link_that_replaces_a_served_directory(self, server, site, link, tmp_path, folder, url):
        path = server.path(f"/srv/shop/{folder}")
        path.mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / "folder")
        link(folder, "/etc")
        status = site.get(f"{url}passwd").status_code
        path.unlink()
        (tmp_path / "folder").rename(path)
        assert status in (403, 404)

    def test_link_to_a_file_of_the_app(self, server, site, link):
        own = server.path("/srv/shop/shared/uploads/public/own.txt")
        own.write_text("own")
        if os.geteuid() == 0:
            os.chown(own, 65534, 65534)
        link("shared/uploads/public/link", own)
        assert site.get("/media/link").text == "own"


class TestSharedFolders:
    """Files below shared/ are served from the declared directories."""

    def test_public_files(self, site):
        answer = site.get("/media/2026/11/new.txt")
        assert answer.text == "new"
        assert answer.headers["Cache-Control"] == "public, max-age=300"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    def test_internal_files_need_x_accel_redirect(self, bare, site):
        assert bare.get("/files/a%20b.txt").status_code == 404
        answer = site.get("/download/files/a%20b.txt")
        assert answer.text == "0123456789"
        assert answer.headers["Content-Type"] == "text/x-shop"
        assert answer.headers["Content-Disposition"] == "attachment"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        part = site.get("/download/files/a%20b.txt", headers={"Range": "bytes=2-4"})
        assert (part.status_code, part.text) == (206, "234")
        assert site.get("/download/files/missing.txt").status_code == 404


def test_event_stream_is_not_buffered(site):
    with site.get("/stream", stream=True, timeout=5) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert next(lines) == b"data: first"
        site.get("/continue")
        assert b"data: second" in lines


def test_undeclared_path_is_buffered(site):
    with pytest.raises(requests.ReadTimeout):
        site.get("/stream/undeclared", timeout=0.5)


def test_websocket_is_proxied_on_declared_paths(connect, prefix):
    hello = "Host: shop.example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    with connect() as connection:
        connection.sendall(f"GET {prefix}/ws/chat HTTP/1.1\r\n{hello}".encode())
        with connection.makefile("rb") as answer:
            assert answer.readline() == b"HTTP/1.1 101 Switching Protocols\r\n"
            while answer.readline() != b"\r\n":
                pass
            connection.sendall(b"hello\n")
            assert answer.readline() == b"hello\n"


class TestFailures:
    """nginx sends its own pages for its errors and passes on error pages of the app."""

    def assert_page(self, answer, status):
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "text/html"
        assert answer.headers["Retry-After"] == "5"
        assert answer.headers["X-Request-ID"] in answer.text
        assert "nginx" not in answer.text

    def test_timeout_of_the_app(self, app, site):
        answer = site.get("/slow")
        self.assert_page(answer, 504)
        timeout = app["nginx_proxy_read_timeout"]
        assert timeout <= answer.elapsed.total_seconds() < 2 * timeout  # no retry

    def test_app_that_is_not_running(self, server, site):
        server.stub.stop()
        try:
            self.assert_page(site.get("/"), 502)
            assert site.get("/static/site.css").status_code == 200
        finally:
            server.stub.start()

    def test_error_page_of_the_app(self, site):
        answer = site.get("/failed")
        assert (answer.status_code, answer.text) == (503, "an error page of the app")
