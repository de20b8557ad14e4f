"""https: who can come in, by which name, and what http does instead."""

from __future__ import annotations

import socket
import ssl

import pytest

from asking import Site, tls

NAMES = {
    "bookworm": ("shop", "shop.example.org", 443),
    "trixie": ("other", "other.example.org", 8443),
}


@pytest.fixture
def app(host):
    """Return the app that has https on this host."""
    return NAMES[host.backend.host][0]


@pytest.fixture
def name(host):
    """Return its name."""
    return NAMES[host.backend.host][1]


@pytest.fixture
def port(host):
    """Return the port that its visitors see, as a part of a URL."""
    port = NAMES[host.backend.host][2]
    return "" if port == 443 else f":{port}"


@pytest.fixture
def trusted(app, certificate):
    """Return its certificate."""
    return certificate(app)


@pytest.fixture
def secure(address, name, trusted):
    """Return its site over https."""
    return Site(address, name, "", trusted)


@pytest.fixture
def handshake(address, trusted):
    """Return a function that shakes hands, and tells about the connection."""

    def shake(name, **wanted):
        context = tls(trusted)
        for setting, value in wanted.items():
            setattr(context, setting, value)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection((address, 443), 5) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            return secure.version(), secure.cipher()[0], secure.selected_alpn_protocol()

    return shake


NEW = ssl.TLSVersion.TLSv1_2


def test_http2_over_tls_13(handshake, name):
    version, _, protocol = handshake(name)
    assert (version, protocol) == ("TLSv1.3", "h2")


def test_older_versions_are_those_of_the_profile(host, handshake, name):
    if host.backend.host == "bookworm":
        assert handshake(name, maximum_version=NEW)[0] == "TLSv1.2"
    else:
        with pytest.raises(ssl.SSLError):
            handshake(name, maximum_version=NEW)
    old = "openssl s_client -connect 127.0.0.1:443 -servername %s -tls1_1 -cipher %s </dev/null"
    assert "alert protocol version" in host.run(old, name, "DEFAULT@SECLEVEL=0").stderr


def test_old_ciphers_are_refused(host, name):
    command = "openssl s_client -connect 127.0.0.1:443 -servername %s -tls1_2 -cipher %s </dev/null"
    for cipher in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA384"):
        assert host.run(command, name, cipher).rc != 0


def test_the_post_quantum_key_exchange_is_there_where_openssl_has_it(host, name):
    shown = host.run("openssl s_client -connect 127.0.0.1:443 -servername %s </dev/null", name)
    found = "X25519MLKEM768" in shown.stdout
    assert found == (host.backend.host == "trixie")


def test_a_second_visit_is_short_without_what_a_stolen_key_would_open(host, name):
    visit = "openssl s_client -connect 127.0.0.1:443 -servername %s"
    # as long as a ticket takes
    ask = "(printf 'GET / HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n'; sleep 1) | "
    first = host.run(f"{ask} {visit} -sess_out /tmp/session", name)
    assert "New, TLSv1.3" in first.stdout
    again = host.run(f"{ask} {visit} -sess_in /tmp/session", name)
    assert "Reused, TLSv1.3" in again.stdout
    shown = host.check_output("openssl sess_id -in /tmp/session -noout -text")
    assert "0010 - " in shown
    assert "0020 - " not in shown  # 32 bytes are the name of a session that nginx keeps itself


def test_no_handshake_with_a_name_that_no_site_has(handshake):
    with pytest.raises(ssl.SSLError, match="unrecognized name"):
        handshake("evil.example")


def test_who_names_none_is_shown_a_certificate_where_an_address_is_a_name(host, address):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((address, 443), 5) as plain:
        if host.backend.host == "bookworm":
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain)
        else:
            with context.wrap_socket(plain) as secure:
                secure.sendall(b"GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n")
                assert secure.recv(12) == b"HTTP/1.1 421"


def test_another_name_than_that_of_the_handshake_is_refused(address, name, trusted):
    assert (
        Site(address, name, "", trusted).get("/", headers={"Host": "x.example"}).status_code == 421
    )


@pytest.mark.parametrize("path", ["/", "/a/b?c=d&e", "//evil.example/", "/%0D%0AX-A:b", "/shop"])
def test_http_leads_to_https_at_the_same_name_and_path(address, name, port, path):
    answer = Site(address, name).post(path)
    assert answer.status_code == 308
    assert answer.headers["Location"] == f"https://{name}{port}{path}"
    assert "X-A" not in answer.headers
    assert "Strict-Transport-Security" not in answer.headers


def test_the_certificate_authoritys_question_is_answered_over_http(host, address, name):
    folder = "/var/lib/flaskstack/acme/.well-known/acme-challenge"
    host.check_output("mkdir -p %s && printf proof >%s", folder, f"{folder}/a-token_1")
    for asked in (name, "not.yet.example"):
        site = Site(address, asked)
        answer = site.get("/.well-known/acme-challenge/a-token_1")
        assert (answer.status_code, answer.text) == (200, "proof")
        assert site.get("/.well-known/acme-challenge/missing").status_code == 404


def test_browsers_are_told_to_come_by_https(host, secure):
    told = secure.get("/").headers.get("Strict-Transport-Security")
    # trixie's certificate signed itself
    assert told == (
        "max-age=63072000; includeSubDomains" if host.backend.host == "bookworm" else None
    )


def test_http3_where_nginx_has_it(host, secure, name, port):
    told = secure.get("/static/missing").headers.get("Alt-Svc")
    built = host.run("nginx -V").stderr
    if "http_v3_module" not in built:
        assert told is None
        return
    assert told == f'h3="{port or ":443"}"; ma=86400'
    ask = "curl --silent --insecure --http3-only --resolve %s --write-out %s --output /dev/null %s"
    resolve, version = f"{name}:443:127.0.0.1", "%{http_version}"
    assert host.check_output(ask, resolve, version, f"https://{name}/") == "3"
