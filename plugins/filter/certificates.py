"""Look at a certificate and its key before any host sees them."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)


def certificate_problems(
    certificate: str, key: str, names: list[str], now: datetime | None = None
) -> list[str]:
    """Return what keeps a PEM certificate (chain) and its key from serving `names`."""
    now = now or datetime.now(UTC)
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        return ["the certificate is no PEM file with -----BEGIN CERTIFICATE-----"]
    site = chain[0]
    problems = _key_problems(site, key)
    missing = [name for name in names if not _covers(_names_of(site), name)]
    if missing:
        there = ", ".join(_names_of(site)) or "no name"
        problems.append(f"it is for {there}, and not for {', '.join(missing)}")
    if now > site.not_valid_after_utc:
        problems.append(f"it ended on {site.not_valid_after_utc:%Y-%m-%d}")
    if now < site.not_valid_before_utc:
        problems.append(f"it begins on {site.not_valid_before_utc:%Y-%m-%d}")
    for below, above in pairwise(chain):
        if below.issuer != above.subject:
            subject = above.subject.rfc4514_string()
            problems.append(
                f"the chain has {subject} after what another signed; it begins with the site's own "
                "certificate, and each one is signed by the next"
            )
    return problems


def _key_problems(site: x509.Certificate, key: str) -> list[str]:
    try:
        private = load_pem_private_key(key.encode(), password=None)
    except TypeError:
        return ["the key has a passphrase, which nginx could not ask anybody for"]
    except ValueError:
        return ["the key is no PEM file with -----BEGIN PRIVATE KEY-----"]
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != site.public_key().public_bytes(*form):
        return ["the key is not this certificate's"]
    return []


def _names_of(site: x509.Certificate) -> list[str]:
    try:
        names = site.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _covers(there: list[str], name: str) -> bool:
    name = plain_name(name)
    return bool({name, f"*.{name.partition('.')[2]}"} & {one.lower() for one in there})


def certificate_names(domains: list[str]) -> list[str]:
    """Return the names that a certificate for a site's domains has, each once.

    Let's Encrypt refuses a name beside a wildcard that has it, such as www.a.org and *.a.org.
    """
    names = list(dict.fromkeys(map(plain_name, domains)))
    return [name for name in names if not _covers([one for one in names if one != name], name)]


def subject_alt_names(names: list[str]) -> list[str]:
    """Return names and addresses as `DNS:` and `IP:` entries of a certificate."""
    return [f"{'IP' if _is_address(name) else 'DNS'}:{plain_name(name)}" for name in names]


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return False


def plain_name(name: str) -> str:
    """Return one of app_domains as a certificate has it: no brackets, small letters."""
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return name.lower()


class FilterModule:
    """Offer the filters to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file by name."""
        return {
            "certificate_problems": certificate_problems,
            "certificate_names": certificate_names,
            "subject_alt_names": subject_alt_names,
        }
