"""A control plane behind TLS: a certificate authority of a test's own, and a real server on a free loopback port."""

from __future__ import annotations

import datetime
import ipaddress
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.processes import eventually


@dataclass(frozen=True)
class Certificate:
    """PEM files: of the authority, of the server it vouches for, and that server's key."""

    authority: Path
    certificate: Path
    key: Path


def make_certificate(folder: Path, address: str = "127.0.0.1") -> Certificate:
    """A new authority, and a server at ``address`` that it vouches for."""
    folder.mkdir(parents=True, exist_ok=True)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("A test's authority")
    basic = x509.BasicConstraints(ca=True, path_length=None)
    authority = _builder(issuer, issuer, authority_key.public_key()).add_extension(basic, critical=True)
    where = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    server = _builder(_name("A test's server"), issuer, key.public_key()).add_extension(where, critical=False)
    files = Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    pem = serialization.Encoding.PEM
    files.authority.write_bytes(authority.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    files.certificate.write_bytes(server.sign(authority_key, hashes.SHA256()).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files.key.write_bytes(private)
    return files


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


@contextmanager
def served(app: Any, port: int, certificate: Certificate | None = None) -> Iterator[str]:
    """``app`` at a URL, with TLS where there is a certificate."""
    tls = {"ssl_certfile": certificate.certificate, "ssl_keyfile": certificate.key} if certificate else {}
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off", **tls)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        eventually(lambda: server.started, "the server has started")
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
