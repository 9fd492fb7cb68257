"""Whom we trust, and who we are: certificates, as PEM in the configuration and as others want them.

In come the settings; out go a TLS context, the same for Entra ID and for Graph, and our own certificate as
msal wants it. All raise SourceInvalid for what can't be read.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from aim.bridges.msgraph.settings import ClientCertificate
from aim.errors import SourceInvalid

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_KEY = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)


def context(ca_cert: Path | None) -> ssl.SSLContext:
    """Verifies by the authorities in that file, or by those that the system trusts."""
    try:
        return ssl.create_default_context(cafile=ca_cert)
    except (OSError, ValueError) as error:
        raise SourceInvalid(
            f"source.ca_cert {ca_cert} can't be used: {_why(error)}",
            "Let it name a file with certificates in PEM.",
        ) from error


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """What proves who we are."""

    pem: str
    """The certificate alone."""
    key: str = field(repr=False)
    """The private key as PEM, no longer encrypted."""
    ends_at: datetime
    """In UTC."""


def own(certificate: ClientCertificate) -> OwnCertificate:
    """Our certificate, read anew, so that one that was renewed is used from then on."""
    try:
        pem = certificate.pem or ""
        if certificate.file is not None:
            pem = certificate.file.read_text("ascii")
        return _parsed(pem, certificate.key or pem, certificate.passphrase)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SourceInvalid(
            f"source.client_certificate can't be used: {_why(error)}",
            "Check that it is PEM, that its private key (RSA) is with it, and its passphrase. A .pfx is made"
            " into PEM by: openssl pkcs12 -in FILE.pfx -out FILE.pem -nodes",
        ) from error


def _parsed(pem: str, key: str, passphrase: str | None) -> OwnCertificate:
    found = _CERTIFICATE.search(pem)
    if found is None:
        raise ValueError("it holds no certificate in PEM")
    block = _KEY.search(key)
    if block is None:
        raise ValueError("it holds no private key in PEM")
    is_encrypted = "ENCRYPTED" in block[0]
    password = passphrase.encode() if passphrase and is_encrypted else None
    if is_encrypted and password is None:
        raise ValueError("its private key is encrypted, and there is no passphrase")
    private = serialization.load_pem_private_key(block[0].encode(), password)
    if not isinstance(private, RSAPrivateKey):
        raise ValueError("its private key is not one of RSA")  # noqa: TRY004  # the caller's one kind
    certificate = x509.load_pem_x509_certificate(found[0].encode())
    if certificate.public_key() != private.public_key():
        raise ValueError("the private key belongs to another certificate")
    return OwnCertificate(
        pem=found[0],
        key=private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
        ends_at=certificate.not_valid_after_utc,
    )


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no certificate in PEM").replace("_", " ").lower()
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return " ".join(str(error).split()) or type(error).__name__
