"""Certificates for tests, made in memory."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM."""

    chain: str
    key: str


class Authority:
    """Somebody who vouches for names."""

    def __init__(self, name: str = "authority") -> None:
        """Make the authority's own key and certificate."""
        self.name = _name(name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        begun = _certificate(self.name, self.key, now - timedelta(1), now + timedelta(365))
        self.pem = _pem(begun.issuer_name(self.name).sign(self.key, hashes.SHA256()))

    def certify(
        self,
        *names: str,
        start: datetime | None = None,
        end: datetime | None = None,
        passphrase: bytes = b"",
    ) -> Pair:
        """Return a certificate for names and addresses, and its new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        begun = _certificate(
            _name("site"), key, start or now - timedelta(1), end or now + timedelta(90)
        )
        begun = begun.issuer_name(self.name).add_extension(
            x509.SubjectAlternativeName([_general(name) for name in names]), critical=False
        )
        protection = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        written = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection).decode()
        return Pair(_pem(begun.sign(self.key, hashes.SHA256())), written)


def _certificate(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()
