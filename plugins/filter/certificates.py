"""Names, settings and checks of a site's certificate."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

sys.path.append(str(Path(__file__).parent))

from problems import Check, check, none_of

# Reserved domains, for which no public certificate is issued.
RESERVED = re.compile(
    r"(.*[.])?example[.](com|net|org)\Z|.*[.](example|invalid|internal|local|localhost|test)\Z"
)


def certificate_problems(
    certificate: str, key: str, names: list[str], now: datetime | None = None
) -> list[str]:
    """Return the reasons why a PEM certificate (chain) and its key cannot serve `names`."""
    now = now or datetime.now(UTC)
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        return ["the certificate is not a PEM file (-----BEGIN CERTIFICATE-----)"]
    site = chain[0]
    problems = _key_problems(site, key)
    missing = [name for name in names if not _covers(_names_of(site), name)]
    if missing:
        covered = ", ".join(_names_of(site)) or "no names"
        problems.append(f"it covers {covered}, but not {', '.join(missing)}")
    if now > site.not_valid_after_utc:
        problems.append(f"it expired on {site.not_valid_after_utc:%Y-%m-%d}")
    if now < site.not_valid_before_utc:
        problems.append(f"it is not valid before {site.not_valid_before_utc:%Y-%m-%d}")
    for below, above in pairwise(chain):
        if below.issuer != above.subject:
            subject = above.subject.rfc4514_string()
            order = "the site's certificate comes first, and each is signed by the next"
            problems.append(f"the chain is out of order at {subject}; {order}")
    return problems


def _key_problems(site: x509.Certificate, key: str) -> list[str]:
    try:
        private = load_pem_private_key(key.encode(), password=None)
    except TypeError:
        return ["the key has a passphrase"]
    except ValueError:
        return ["the key is not a PEM file (-----BEGIN PRIVATE KEY-----)"]
    if private.public_key() != site.public_key():
        return ["the key does not belong to the certificate"]
    return []


def _names_of(site: x509.Certificate) -> list[str]:
    try:
        names = site.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def _covers(names: list[str], name: str) -> bool:
    name = normalize_name(name)
    return bool({name, f"*.{name.partition('.')[2]}"} & {one.lower() for one in names})


def certificate_names(domains: list[str]) -> list[str]:
    """Return the names of the certificate for a site's domains, without duplicates.

    Let's Encrypt rejects a name that a wildcard of the same certificate covers.
    """
    names = list(dict.fromkeys(map(normalize_name, domains)))
    return [name for name in names if not _covers([one for one in names if one != name], name)]


def certificate_checks(
    settings: Mapping[str, Any], certificate: str, key: str, ca_exists: bool, edge_hosts: list[str]
) -> Iterator[Check]:
    """Return the checks of role certificates, for filter `problems`.

    `settings` has the variables by name. `certificate` and `key` are the provided PEM texts.
    """

    def checked(name: str, ok: Any, reason: str, example: Any) -> Check:
        return check(name, ok, reason, value=settings[name], example=example)

    source, domains = settings["app_certificate"], settings["app_domains"]
    yield checked(
        "certificates_acme_dns_api",
        re.match(r"https?://[^\s\"]+\Z", settings["certificates_acme_dns_api"]),
        "must be a URL",
        "https://api.digitalocean.com",
    )
    yield checked(
        "certificates_acme_dns_resolvers",
        all(re.match(r"\S+:\d+\Z", one) for one in settings["certificates_acme_dns_resolvers"]),
        "must be addresses with a port",
        ["1.1.1.1:53"],
    )
    yield checked(
        "certificates_acme_dns_propagation_timeout",
        10 <= int(settings["certificates_acme_dns_propagation_timeout"]) <= 600,
        "must be 10 to 600 seconds",
        120,
    )
    if source == "provided" and settings["app_https"]:
        reason = "must be files on the controller, or texts in PEM"
        found = certificate_problems(certificate, key, domains) if certificate and key else [reason]
        if certificate and key:
            reason = f"cannot serve the site: {'; '.join(found)}"
        yield check(
            "certificates_provided_certificate",
            not found,
            f"and certificates_provided_key {reason}",
            example="files/shop.example.org.pem",
        )
    if source != "acme" or not settings["app_https"]:
        return
    yield checked(
        "certificates_acme_email",
        re.match(r"[^@\s]+@[^@\s]+[.][^@\s]+\Z", settings["certificates_acme_email"]),
        "must be your email address, which the ACME server stores with the account",
        "ada@shop.example.org",
    )
    yield none_of(
        "app_domains",
        [name for name in domains if re.match(r"[0-9.]+$|.*:|[^.]+\Z", name)],
        "must be public names if app_certificate is acme; use selfsigned for addresses",
        example=["shop.example.org"],
    )
    directory = settings["certificates_acme_directory"]
    yield none_of(
        "app_domains",
        [name for name in domains if RESERVED.match(name) and "letsencrypt.org" in directory],
        "must be your own names, because Let's Encrypt does not certify reserved ones",
        example=["www.your-domain.org"],
    )
    needs_dns = ""
    if wildcards := [name for name in domains if name.startswith("*")]:
        needs_dns = f"since app_domains has {', '.join(wildcards)}, which http-01 cannot verify"
    elif len(edge_hosts) > 1:
        hosts = ", ".join(edge_hosts)
        needs_dns = f"with several hosts in group edge ({hosts}): any of them may get the challenge"
    uses_dns = settings["certificates_acme_challenge"] == "dns-01"
    yield checked(
        "certificates_acme_challenge",
        uses_dns or not needs_dns,
        f"must be dns-01 {needs_dns}",
        "dns-01",
    )
    yield check(
        "certificates_acme_dns_token",
        not uses_dns or re.match(r"\S{16,}\Z", settings.get("certificates_acme_dns_token", "")),
        "must be a token of DigitalOcean's API if certificates_acme_challenge is dns-01",
        example="{{ vault_dns_token }}",
    )
    yield checked(
        "certificates_acme_directory",
        re.match(r"https://[^\s\"]+\Z", directory),
        "must be a URL with https",
        "https://acme-v02.api.letsencrypt.org/directory",
    )
    yield checked(
        "certificates_acme_ca",
        not settings["certificates_acme_ca"] or ca_exists,
        "must be a file on the controller, or empty",
        "files/ca.pem",
    )


def certificate_directory(parts: list[Any]) -> str:
    """Return the name of a certificate's directory: its source, and a hash of all its parts."""
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    return f"{parts[0]}-{digest[:16]}"


def lego_command(names: list[str], options: dict[str, Any]) -> list[str]:
    """Return the command that requests a certificate for names from an ACME server."""
    command = ["lego", "--accept-tos", "--path", options["path"]]
    command += ["--server", options["server"], "--email", options["email"]]
    command += ["--key-type", "rsa2048" if options["key"] == "rsa" else "ec256"]
    command += [word for name in names for word in ("--domains", name)]
    if options["challenge"] == "dns-01":
        command += ["--dns", "digitalocean"]
        command += [word for one in options["resolvers"] for word in ("--dns.resolvers", one)]
    else:
        command += ["--http", "--http.webroot", options["webroot"]]
    return [*command, "run"]


def subject_alt_names(names: list[str]) -> list[str]:
    """Return names and addresses as `DNS:` and `IP:` subject alternative names."""
    return [f"{'IP' if _address(name) else 'DNS'}:{normalize_name(name)}" for name in names]


def normalize_name(name: str) -> str:
    """Return a domain in lower case and an IPv6 address without brackets."""
    return _address(name) or name.lower()


def _address(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        return ""


class FilterModule:
    """Filters for Ansible."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "certificate_checks": certificate_checks,
            "certificate_directory": certificate_directory,
            "certificate_names": certificate_names,
            "lego_command": lego_command,
            "subject_alt_names": subject_alt_names,
        }
