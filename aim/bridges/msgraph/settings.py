"""What the bridge to Microsoft Graph needs to know, as plain frozen data. Filled from the configuration by
`app`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

AUTHORITY = "https://login.microsoftonline.com"
BASE_URL = "https://graph.microsoft.com"
SCOPE = "https://graph.microsoft.com/.default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecret:
    """The value of a client secret (not its id)."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A certificate whose private key we have, and which Entra ID knows: a PEM file, or PEM text."""

    file: Path | None = None
    pem: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    """The private key as PEM text; None: it is in the same PEM as the certificate."""
    passphrase: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedIdentity:
    """The identity that Azure gives the machine we run on; nothing to keep secret."""

    client_id: str | None = None
    """Of a user-assigned identity; None: the machine's own (system-assigned)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadIdentity:
    """A token of another issuer that Entra ID trusts for this app (federated credential), as Kubernetes
    puts it into a file and renews it."""

    token_file: Path


Credential = ClientSecret | ClientCertificate | ManagedIdentity | WorkloadIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSettings:
    """One tenant, seen by one app."""

    # The way there: `tokens`, `transport`.
    tenant_id: str
    """Its id, or one of its domains."""
    client_id: str
    """The app's id."""
    credential: Credential
    authority: str = AUTHORITY
    """Who gives tokens: another one in national clouds. Without the tenant."""
    base_url: str = BASE_URL
    """Where Graph is; without the version."""
    version: str = "v1.0"
    scopes: tuple[str, ...] = (SCOPE,)
    ca_cert: Path | None = None
    """Authorities in PEM that both must be certified by; None: those that the system trusts."""
    connect_timeout: float = 10.0
    """Seconds."""
    read_timeout: float = 60.0
    """Seconds without a byte of an answer."""
    parallelism: int = 4
    """How many requests are under way at once."""

    # What is read: `reading`, `polling`, `directory`.
    filter: str | None = None
    """An OData `$filter` for users; those that it does not match are not there."""
    groups: tuple[str, ...] = ()
    """Object ids of the groups to read, with their members; none: everything."""
    transitive: bool = True
    """Whether the members of groups in a group are its members."""
    include_guests: bool = False
    localpart: str = "userPrincipalName"
    """The property of a user that the localpart is made of; of an address, the part before the @."""
    page_size: int = 999
    full_read_interval: timedelta = timedelta(hours=24)
