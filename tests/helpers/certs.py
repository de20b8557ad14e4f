"""Certificates for tests, created in memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in PEM."""

    chain: str
    key: str


class Authority:
    def __init__(self, name: str = "authority") -> None:
        self.ca = trustme.CA(organization_name=name)
        self.pem = self.ca.cert_pem.bytes().decode()

    def certify(
        self,
        *names: str,
        start: datetime | None = None,
        end: datetime | None = None,
        passphrase: bytes = b"",
    ) -> Pair:
        """Return a certificate for these names and addresses, with its new key."""
        now = datetime.now(UTC)
        leaf = self.ca.issue_cert(
            *names, not_before=start or now - timedelta(1), not_after=end or now + timedelta(90)
        )
        key = leaf.private_key_pem.bytes()
        if passphrase:
            key = load_pem_private_key(key, None).private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase)
            )
        return Pair(leaf.cert_chain_pems[0].bytes().decode(), key.decode())
