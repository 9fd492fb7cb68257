"""TLS to the LDAP server: always verified, the host name too, with ldaps:// and StartTLS alike.

In come the settings; out goes what ldap3 wraps its socket with, and afterwards what was agreed on. ldap3's
own Tls checks names by rules of its own and loses the reason of a failure, so the context here is the
standard library's, with OpenSSL checking the name.
"""

from __future__ import annotations

import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldap3 import Tls

from aim.bridges.ldap.settings import ClientCertificate, LdapSettings
from aim.errors import SourceError, SourceInvalid, SourceUnavailable


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What a connection is protected by."""

    version: str
    cipher: str
    subject: str
    issuer: str
    not_after: str
    """When the server's certificate ends, as OpenSSL writes it: `Jan  5 09:34:43 2030 GMT`."""


class VerifyingTls(Tls):  # type: ignore[misc]  # ldap3 has no types
    """What ldap3 makes a socket secure with. `failure` is why that did not work."""

    def __init__(self, settings: LdapSettings) -> None:
        """Raises SourceInvalid if a certificate can't be read."""
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context = _context(settings)
        self.failure: Exception | None = None

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        """ldap3 calls this with its connection, for ldaps:// and StartTLS."""
        try:
            connection.socket = self._context.wrap_socket(
                connection.socket,
                do_handshake_on_connect=do_handshake,
                server_hostname=connection.server.host,
            )
        except (OSError, ValueError) as error:
            self.failure = error
            raise


def facts(secured: ssl.SSLSocket) -> TlsFacts:
    """What both sides agreed on."""
    certificate: dict[str, Any] = secured.getpeercert() or {}
    cipher = secured.cipher()
    return TlsFacts(
        version=secured.version() or "",
        cipher=cipher[0] if cipher else "",
        subject=_name(certificate.get("subject", ())),
        issuer=_name(certificate.get("issuer", ())),
        not_after=str(certificate.get("notAfter", "")),
    )


def _name(rdns: Any) -> str:
    return ", ".join(f"{kind}={value}" for rdn in rdns for kind, value in rdn)


def error_of(failure: Exception, uri: str, host: str) -> SourceError:
    """The error for a handshake that failed."""
    if isinstance(failure, ssl.SSLCertVerificationError):
        why = failure.verify_message.rstrip(".")
        if "mismatch" in why:
            return SourceUnavailable(
                f"{uri}: the server's certificate is not for {host}: {why}",
                "Write the server's name in source.uri as it is in its certificate.",
            )
        return SourceUnavailable(
            f"{uri}: the certificate of {host} can't be trusted: {why}", _remedy(failure.verify_code)
        )
    if isinstance(failure, socket.timeout):
        return SourceUnavailable(
            f"{uri}: the server does not answer with TLS in time", "Check the port in source.uri."
        )
    why = failure.reason if isinstance(failure, ssl.SSLError) and failure.reason else str(failure)
    hint = "Check that the server offers TLS on this port (ldaps://: 636; ldap:// with source.start_tls: 389)"
    return SourceUnavailable(
        f"{uri}: TLS failed: {why}", f"{hint}, and takes our certificate if it wants one."
    )


# X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
_OUT_OF_TIME = (9, 10)


def _remedy(code: int) -> str:
    if code in _OUT_OF_TIME:
        return "Renew the server's certificate, or mend this machine's clock."
    return "Give the certificate of the authority that signed it as source.ca_cert (PEM)."


def _context(settings: LdapSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_cert)
    except (OSError, ValueError) as error:
        raise SourceInvalid(
            f"source.ca_cert {settings.ca_cert} can't be used: {_why(error)}",
            "Let it name a file with certificates in PEM.",
        ) from error
    if settings.certificate is not None:
        _load(context, settings.certificate)
    return context


def _load(context: ssl.SSLContext, certificate: ClientCertificate) -> None:
    try:
        if certificate.file is not None:
            _load_file(context, certificate.file, certificate)
            return
        with _private_file(certificate.pem or "") as file:
            _load_file(context, file, certificate)
    except (OSError, ValueError) as error:
        raise SourceInvalid(
            f"our own certificate (source.cert) can't be used: {_why(error)}",
            "Check that it is PEM, that the private key is with it, and source.cert.passphrase.",
        ) from error


def _load_file(context: ssl.SSLContext, file: Path, certificate: ClientCertificate) -> None:
    # Never None: then OpenSSL would ask on the terminal.
    passphrase = certificate.passphrase or ""
    if certificate.key is None:
        context.load_cert_chain(file, password=passphrase)
        return
    with _private_file(certificate.key) as key:
        context.load_cert_chain(file, key, password=passphrase)


@contextmanager
def _private_file(pem: str) -> Iterator[Path]:
    """OpenSSL reads certificates and keys from files only: one for us alone, that is gone at once."""
    with tempfile.TemporaryDirectory(prefix="aim-") as directory:
        file = Path(directory, "private.pem")
        file.touch(mode=0o600)
        file.write_text(pem)
        yield file


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no certificate in PEM").replace("_", " ").lower()
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
