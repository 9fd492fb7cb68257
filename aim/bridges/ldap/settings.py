"""What the LDAP bridge needs to know, as plain frozen data. Filled from the configuration by `app`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from aim.directory.entries import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """Our own certificate: a PEM file, or PEM text."""

    file: Path | None = None
    pem: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    """The private key as PEM text; None: it is in the same PEM as the certificate."""
    passphrase: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LdapSettings:
    """One directory, which several servers may serve."""

    uris: tuple[str, ...]
    """Servers in order of preference: the first that can be reached is used."""
    base: str
    rules: Rules = field(default_factory=Rules)
    filter: str | None = None
    """Entries that it does not match are not there; what lies below them still is."""
    bind_dn: str | None = None
    """A DN, `DOMAIN\\user` or `user@domain`. None: by certificate (SASL EXTERNAL) if there is one, else as
    nobody."""
    bind_password: str | None = field(default=None, repr=False)
    start_tls: bool = False
    ca_cert: Path | None = None
    """Authorities in PEM; None: those that the system trusts."""
    certificate: ClientCertificate | None = None
    connect_timeout: float = 10.0
    """Seconds for the connection, then again for TLS and for the bind."""
    read_timeout: float = 120.0
    """Seconds that the server may take for one page of entries."""
    page_size: int = 1000
    name: str | None = None
    """What the organisation is called; None: as the topmost entry says."""

    @property
    def is_external(self) -> bool:
        """Whether the certificate says who we are, for want of a name and a password."""
        return self.certificate is not None and self.bind_dn is None
