"""TLS versions, ciphers, SNI, redirects to HTTPS and ACME challenges."""

from __future__ import annotations

import socket
import ssl
import subprocess

import pytest

from helpers.clients import Site, tls
from helpers.nginx_server import build


@pytest.fixture
def app(server):
    """Return the variables of the app with HTTPS on this host: the last one."""
    return [*server.apps.values()][-1]


@pytest.fixture
def modern(app):
    return app.get("nginx_tls_profile") == "modern"


@pytest.fixture
def ca(server, app):
    """Return the path of the app's certificate."""
    return str(server.certificate(app["app_name"]))


@pytest.fixture
def http(server, name):
    return Site(f"{server.address}:{server.http}", name)


@pytest.fixture
def openssl(server, name):
    """Return a function that runs `openssl s_client` and returns the completed process."""

    def run(*options, request=""):
        address = f"{server.address}:{server.https}"
        command = ["openssl", "s_client", "-connect", address, "-servername", name, *options]
        return subprocess.run(command, input=request, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def handshake(server, ca):
    """Return a function that connects and returns TLS version and protocol."""

    def connect(name, maximum=ssl.TLSVersion.MAXIMUM_SUPPORTED):
        context = tls(ca)
        context.maximum_version = maximum
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection((server.address, server.https), 5) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            return secure.version(), secure.selected_alpn_protocol()

    return connect


def test_http2_over_tls_13(handshake, name):
    assert handshake(name) == ("TLSv1.3", "h2")


def test_oldest_tls_version_of_the_profile(handshake, openssl, name, modern):
    if modern:
        with pytest.raises(ssl.SSLError):
            handshake(name, ssl.TLSVersion.TLSv1_2)
    else:
        assert handshake(name, ssl.TLSVersion.TLSv1_2)[0] == "TLSv1.2"
    old = openssl("-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
    assert "alert protocol version" in old.stderr


@pytest.mark.parametrize("cipher", ["AES128-SHA", "ECDHE-ECDSA-AES256-SHA384"])
def test_old_ciphers_are_rejected(openssl, cipher):
    assert " alert " in openssl("-tls1_2", "-cipher", cipher).stderr


def test_session_is_resumed_without_a_ticket_key(openssl, tmp_path):
    session = str(tmp_path / "session")
    # nginx closes the connection after the response, when the client has the session.
    request = "GET / HTTP/1.0\r\nHost: x\r\n\r\n"
    assert "New, TLSv1.3" in openssl("-ign_eof", "-sess_out", session, request=request).stdout
    assert "Reused, TLSv1.3" in openssl("-ign_eof", "-sess_in", session, request=request).stdout
    command = ["openssl", "sess_id", "-in", session, "-noout", "-text"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "0010 - " in text
    assert "0020 - " not in text  # 32 bytes: an ID of the session cache, not a ticket


def test_handshake_with_an_unknown_name_is_rejected(handshake):
    with pytest.raises(ssl.SSLError, match="unrecognized name"):
        handshake("evil.example")


def test_handshake_without_sni_needs_a_site_with_an_ip_address(server, app):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((server.address, server.https), 5) as plain:
        if "192.0.2.7" in app["app_domains"]:
            with context.wrap_socket(plain) as secure:
                secure.sendall(b"GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n")
                assert secure.recv(12) == b"HTTP/1.1 421"
        else:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain)


def test_host_header_must_match_the_sni_name(bare):
    assert bare.get("/", headers={"Host": "x.example"}).status_code == 421


@pytest.mark.parametrize("path", ["/", "/a/b?c=d&e", "//evil.example/", "/%0D%0AX-A:b"])
def test_http_redirects_to_https_with_the_same_name_and_path(http, app, name, path):
    answer = http.post(path, headers={"Host": f"{name}:8080"})  # as with a forwarded port
    port = f":{app['app_https_port']}" if "app_https_port" in app else ""
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"https://{name}{port}{path}"
    assert not {"X-A", "Strict-Transport-Security"} & {*answer.headers}


def test_acme_challenge_is_served_for_any_name(server, http, bare):
    folder = server.path("/var/lib/flaskstack/acme/.well-known/acme-challenge")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a-token_1").write_text("response")
    path = "/.well-known/acme-challenge/a-token_1"
    for answer in (
        http.get(path),
        http.get(path, headers={"Host": "not.yet.example"}),
        bare.get(path),
    ):
        assert (answer.status_code, answer.text) == (200, "response")
    assert http.get("/.well-known/acme-challenge/missing").status_code == 404


def test_hsts_is_sent_unless_the_certificate_is_self_signed(app, bare):
    provided = app.get("app_certificate") == "provided"
    expected = "max-age=63072000; includeSubDomains" if provided else None
    assert bare.get("/").headers.get("Strict-Transport-Security") == expected


def test_http3_is_advertised_if_nginx_supports_it(app, bare):
    alternative = f'h3=":{app.get("app_https_port", 443)}"; ma=86400'
    expected = alternative if "http_v3_module" in build() else None
    assert bare.get("/static/missing").headers.get("Alt-Svc") == expected
