"""A certificate authority for tests, and certificates of servers and clients, good ones and bad ones.

certificates.ca                                   # what a client is to trust
certificates.server("127.0.0.1", "localhost")     # what a server shows
certificates.client("reader", passphrase="…")     # what a client shows: CN=reader
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM, the private key unreadable for others, as servers demand."""

    cert: Path
    """The certificate."""
    key: Path
    """Its private key."""
    both: Path
    """The two of them in one file, the key first."""


class Certificates:
    """One authority; every call makes a new certificate below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count(1)
        self._authority = trustme.CA(organization_name="Example")
        self.ca = directory / "ca.pem"
        """The authority's own certificate."""
        directory.mkdir(parents=True, exist_ok=True)
        self._authority.cert_pem.write_to_path(str(self.ca))

    def server(self, *names: str) -> Certificate:
        """For a server with these DNS names and IP addresses."""
        return self._write(self._authority.issue_cert(*names))

    def expired(self, *names: str) -> Certificate:
        """The same, no longer valid since yesterday."""
        yesterday = datetime.now(UTC) - timedelta(days=1)
        return self._write(self._authority.issue_cert(*names, not_after=yesterday))

    def client(self, name: str, passphrase: str | None = None) -> Certificate:
        """For somebody whose subject's CN is `name`; a `passphrase` encrypts the key."""
        issued = self._authority.issue_cert(
            f"{name}@example.com",
            common_name=name,
            organization_name="Example",
            organization_unit_name="Clients",
        )
        return self._write(issued, passphrase)

    def _write(self, issued: trustme.LeafCert, passphrase: str | None = None) -> Certificate:
        name = f"{next(self._numbers)}"
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        key = issued.private_key_pem.bytes()
        if passphrase is not None:
            key = _encrypted(key, passphrase)
        return Certificate(
            cert=self._file(f"{name}.cert.pem", chain),
            key=self._file(f"{name}.key.pem", key),
            both=self._file(f"{name}.pem", key + chain),
        )

    def _file(self, name: str, content: bytes) -> Path:
        path = self._directory / name
        path.touch(mode=0o600)
        path.write_bytes(content)
        return path


def _encrypted(key: bytes, passphrase: str) -> bytes:
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The authority that the test servers' certificates come from."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def other_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority that none of the test servers' certificates come from."""
    return Certificates(tmp_path_factory.mktemp("other-certificates"))
