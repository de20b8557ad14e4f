"""The site on a host: service, journal, files and versions. tests/nginx tests the responses."""

from __future__ import annotations

import re
import socket
import uuid
from collections import Counter
from contextlib import ExitStack

import pytest

from helpers.clients import Site, journal, tls
from helpers.wait import wait_for

CONNECTIONS = 900  # more than Debian's settings allow: 384 for each of two workers
REQUEST = b"GET %s/stream HTTP/1.1\r\nHost: shop.example.org\r\nConnection: close\r\n\r\n"


@pytest.fixture
def debian_13(host):
    """Return whether the host has Debian 13. Otherwise it has Debian 12."""
    return host.backend.host == "trixie"


@pytest.fixture
def secure(address, https, certificate):
    """Return a client for the host's HTTPS site."""
    app = "shop" if https else "other"
    return Site(address, f"{app}.example.org", "", certificate(app))


def test_client_address_and_request_id_reach_app_and_journal(host, site, prefix, logged):
    gateway = host.check_output("ip -4 route show default").split()[2]
    answer = site.get("/notes?page=2")
    request = answer.json()
    assert request["path"] == "/notes?page=2"
    assert dict(request["headers"])["X-Forwarded-For"] == gateway
    entry = logged(answer.headers["X-Request-ID"])
    assert (entry["remote_addr"], entry["uri"]) == (gateway, f"{prefix}/notes?page=2")
    assert entry["upstream_addr"] == "unix:/srv/shop/web.sock"


def test_ipv6_is_served(host, https, prefix):
    scheme, port = ("https", 443) if https else ("http", 80)
    command = f"curl --silent --insecure --resolve shop.example.org:{port}:[::1] %s"
    request = host.check_output(command, f"{scheme}://shop.example.org{prefix}/")
    assert '["X-Forwarded-For", "::1"]' in request


def test_all_requests_of_a_burst_are_logged(host, site):
    agent = uuid.uuid4().hex

    for _ in range(200):
        site.get("/static/site.css", headers={"User-Agent": agent})
    wait_for(lambda: len(journal(host, "nginx.service", grep=lambda line: agent in line)) == 200)


def test_many_concurrent_requests(address, ca, prefix):
    context = tls(ca) if ca else None

    def connect():
        connection = socket.create_connection((address, 443 if ca else 80), 30)
        name = "shop.example.org"
        return context.wrap_socket(connection, server_hostname=name) if ca else connection

    with ExitStack() as stack:
        connections = [stack.enter_context(connect()) for _ in range(CONNECTIONS)]
        for connection in connections:
            connection.sendall(REQUEST % prefix.encode())
        answers = Counter(connection.recv(12) for connection in connections)
    assert answers == {b"HTTP/1.1 200": CONNECTIONS}


def test_worker_may_open_two_files_per_connection(host):
    limits = host.check_output("cat /proc/$(pgrep --newest --uid www-data nginx)/limits")
    assert int(re.search(r"Max open files +(\d+)", limits)[1]) >= 2 * 4096


def test_nginx_reads_only_the_declared_directories_of_the_app(host, site):
    public, private = (f"/srv/shop/shared/uploads/{name}" for name in ("public/2026", "private"))
    write = f"umask 027; mkdir -p {public} {private}; echo new | tee {public}/a.txt {private}/b.txt"
    host.check_output("setpriv --reuid=shop --regid=shop --clear-groups sh -c %s", write)
    for path in ("/media/2026/a.txt", "/download/files/b.txt"):
        assert site.get(path).text == "new\n"
    assert site.get("/media/old.txt").text == "long there"
    read = "setpriv --reuid=www-data --regid=www-data --init-groups cat %s"
    assert host.run(read, "/srv/shop/shared/uploads/public/old.txt").rc == 0
    links = f"cd {public}; ln -sf /etc/passwd .; ln -sf /etc .; ln -sf a.txt own"
    host.check_output("setpriv --reuid=shop --regid=shop --clear-groups sh -c %s", links)
    answers = [site.get(f"/media/2026/{path}") for path in ("passwd", "etc/passwd", "own")]
    assert [answer.status_code for answer in answers] == [404, 404, 200]
    for path in ("secret/key.txt", "uploads/beside.txt"):
        assert host.run(read, f"/srv/shop/shared/{path}").rc != 0


def test_nginx_restarts_after_it_is_killed(host, site):
    host.check_output("kill -9 $(cat /run/nginx.pid); pkill -9 --uid www-data nginx || true")
    assert wait_for(lambda: site.get("/").status_code == 200, 30)
    limit = "systemctl show --value --property StartLimitIntervalUSec nginx"
    assert host.check_output(limit) == "0"  # restarts are not limited


def test_http2_over_tls_13(address, secure):
    context = tls(secure.ca)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((address, 443), 5) as plain,
        context.wrap_socket(plain, server_hostname=secure.name) as connection,
    ):
        assert connection.version() == "TLSv1.3"
        assert connection.selected_alpn_protocol() == "h2"


def test_post_quantum_key_exchange_if_openssl_supports_it(host, secure, debian_13):
    command = "openssl s_client -connect 127.0.0.1:443 -servername %s </dev/null"
    output = host.run(command, secure.name).stdout
    assert "TLSv1.3" in output
    assert ("X25519MLKEM768" in output) == debian_13


def test_http3_if_nginx_supports_it(host, secure, debian_13):
    alternative = secure.get("/static/missing").headers.get("Alt-Svc")
    assert alternative == ('h3=":8443"; ma=86400' if debian_13 else None)
    if debian_13:
        command = "curl --silent --insecure --http3-only --resolve %s --head %s"
        resolve = f"{secure.name}:443:127.0.0.1"
        answer = host.check_output(command, resolve, f"https://{secure.name}/")
        assert answer.startswith("HTTP/3 502")  # the second app has no upstream
