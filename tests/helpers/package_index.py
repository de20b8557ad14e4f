"""An index of packages that asks for a password, with a certificate of a CA of its own."""

from __future__ import annotations

import hashlib
import io
import ssl
import subprocess
import sys
import tarfile
import threading
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Handler(SimpleHTTPRequestHandler):
    """Give files to those who know the password, and note who did not."""

    def do_GET(self) -> None:
        """Answer a request."""
        if self.headers.get("Authorization") == self.server.wanted:
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", "Basic")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class IndexServer(ThreadingHTTPServer):
    """Serves a folder of packages as localhost, until it is shut down."""

    def __init__(self, folder: Path, password: str) -> None:
        """Begin to serve."""
        self.folder, self.ca = folder, folder.with_name("index-ca.pem")
        (folder / "simple").mkdir(parents=True)
        super().__init__(("", 0), partial(Handler, directory=str(folder)))
        self.wanted = f"Basic {b64encode(f'me:{password}'.encode()).decode()}"
        self.url = f"https://me:{password}@localhost:{self.server_port}/simple"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certify("localhost", self.ca))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def mirror(self, requirement: str) -> None:
        """Take a package from the index that this machine uses."""
        folder = self.folder / "simple" / requirement.partition("==")[0]
        command = [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps", requirement]
        subprocess.run([*command, f"--dest={folder}"], check=True)
        self.list(folder)

    def add_source(self, name: str, build_wheel: str) -> None:
        """Add a package that is built where it is installed."""
        metadata = f"Metadata-Version: 2.2\nName: {name}\nVersion: 1.0\n"
        project = f'[project]\nname = "{name}"\nversion = "1.0"\n[build-system]\nrequires = []\n'
        parts = {
            "PKG-INFO": metadata,
            "pyproject.toml": project + 'build-backend = "backend"\nbackend-path = ["."]\n',
            "backend.py": f"def build_wheel(folder, *_):\n    {build_wheel}\n",
        }
        folder = self.folder / "simple" / name
        folder.mkdir()
        with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
            for part, text in parts.items():
                member = tarfile.TarInfo(f"{name}-1.0/{part}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        self.list(folder)

    def list(self, folder: Path) -> None:
        """Write the page that names a package's files."""
        links = [
            f'<a href="{path.name}#sha256={hashlib.sha256(path.read_bytes()).hexdigest()}">'
            f"{path.name}</a>"
            for path in sorted(folder.iterdir())
            if path.name != "index.html"
        ]
        (folder / "index.html").write_text("\n".join(links))


def certify(host: str, ca: Path) -> Path:
    """Make a CA and a server's key and certificate; return the file of the latter two."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("CA", host)]
    issuer = x509.SubjectKeyIdentifier.from_public_key(keys[0].public_key())
    pages = []
    for key, name, is_ca in zip(keys, names, (True, False), strict=True):
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        usage |= dict.fromkeys(("encipher_only", "decipher_only"), False)
        usage |= {"digital_signature": not is_ca, "key_cert_sign": is_ca, "crl_sign": is_ca}
        builder = (
            x509.CertificateBuilder(names[0], name, key.public_key(), x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), False
            )
        )
        if not is_ca:
            there = x509.SubjectAlternativeName([x509.DNSName(host)])
            builder = builder.add_extension(there, critical=False)
        page = builder.sign(keys[0], hashes.SHA256())
        pages.append(page.public_bytes(serialization.Encoding.PEM))
    ca.write_bytes(pages[0])
    private = keys[1].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    server = ca.with_name("index-server.pem")
    server.write_bytes(private + pages[1])
    return server
