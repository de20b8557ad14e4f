"""An app on another host connects to the queue over TLS only."""

import socket

import pytest
import redis

testinfra_hosts = ["ansible://bookworm"]


@pytest.fixture
def connect(host, address, generated, tmp_path):
    """Return `connect(**options)`, which returns a client that trusts the queue's certificate."""
    authority = tmp_path / "ca.pem"
    authority.write_text(host.check_output("cat /etc/redis/my_shop.crt"))

    def connect(**options):
        options = {"ssl_ca_certs": str(authority), "password": generated("queue")} | options
        return redis.Redis(
            host=address, port=6380, username="my_shop", socket_timeout=5, **{"ssl": True} | options
        )

    return connect


def test_app_connects_over_tls(connect):
    with connect() as client:
        assert client.ping()


def test_connection_without_tls_fails(connect):
    with connect(ssl=False, ssl_ca_certs=None) as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_certificate_is_untrusted_without_the_ca(connect):
    untrusted = pytest.raises(redis.ConnectionError, match="CERTIFICATE")
    with connect(ssl_ca_certs=None) as client, untrusted:
        client.ping()


def test_unused_instance_does_not_run(host, address):
    assert not host.service("redis-server@my_shop-cache").is_running
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 6379), timeout=2).close()
