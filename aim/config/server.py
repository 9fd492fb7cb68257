"""Models of everything about the homeserver and our own process. Plain settings, no behaviour."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from aim.config.document import Block
from aim.config.faults import Fault
from aim.config.fields import (
    Duration,
    FilePath,
    HttpUrl,
    Localpart,
    Port,
    PostgresUrl,
    Seconds,
    Secret,
    ServerName,
    Text,
    Token,
    as_list,
)
from aim.config.section import Section


class MasConfig(Section):
    """The Matrix Authentication Service, where it keeps the accounts: its admin API by client credentials."""

    url: HttpUrl
    client_id: Text
    client_secret: Secret


class HomeserverConfig(Section):
    url: HttpUrl
    """Base URL of the Client-Server API."""
    server_name: ServerName
    auth: Literal["synapse", "mas"] = "synapse"
    """Who keeps the accounts."""
    admin_user: Localpart | None = None
    """Act as this admin where the bot itself is none."""
    mas: MasConfig | None = None

    @classmethod
    def cross_check(cls, block: Block) -> Iterator[Fault]:
        if block.get("auth") == "mas" and "mas" not in block:
            yield Fault.at(block.place_of("mas"), "is missing: auth is mas")


class AppserviceConfig(Section):
    id: Text = "aim"
    """Names this instance: two with different ids on one homeserver keep apart."""
    sender_localpart: Localpart = "aim"
    """Localpart of our bot."""
    as_token: Token
    hs_token: Token
    actor_token: Token | None = None
    """Token of the second registration, which acts as users; without it the `as_token` acts."""

    @classmethod
    def cross_check(cls, block: Block) -> Iterator[Fault]:
        given: dict[str | SecretStr, str] = {}
        for key in ("as_token", "hs_token", "actor_token"):
            token = block.get(key)
            if not isinstance(token, (str, SecretStr)) or not token:
                continue
            if token in given:
                yield Fault.at(block.place_of(key), f"must differ from {given[token]}")
            given.setdefault(token, key)


class ListenConfig(Section):
    host: Text = "0.0.0.0"  # noqa: S104 - in a container the homeserver is another machine
    port: Port = 8080


class DatabaseConfig(Section):
    url: PostgresUrl | None = None
    """Left out: an embedded Postgres under `data_dir`."""


class LoggingConfig(Section):
    level: Literal["error", "warn", "info", "http", "verbose", "debug", "silly"] = "info"
    format: Literal["pretty", "json"] = "pretty"


class TelemetryConfig(Section):
    instance_id: Text
    send_interval: Seconds = 3600
    endpoint: HttpUrl | None = None
    """Left out: gathered, sent nowhere."""
    retry_count: int = Field(default=3, ge=0, le=100)
    retry_interval: Seconds = 60


class MailAuthConfig(Section):
    user: Text
    password: Secret = Field(alias="pass")


MAIL_ADDRESS = re.compile(r'[^\s@<>()\[\],;:"\\]+@[^\s@<>()\[\],;:"\\]+')
"""An address as people have them. RFC 5321 allows more: quoted local parts, IP addresses for domains."""


def _address(value: str) -> str:
    if not MAIL_ADDRESS.fullmatch(value) or not value.isprintable():
        raise ValueError("must be an e-mail address such as it@example.com")
    return value


def _mailbox(value: str) -> str:
    _, address = parseaddr(value)
    if not MAIL_ADDRESS.fullmatch(address) or not value.endswith((address, f"<{address}>")):
        raise ValueError("must be an e-mail address, or a name and an address: Example IT <it@example.com>")
    if not address.isascii():
        raise ValueError("must be an address in ASCII; a domain has such a form, which begins with xn--")
    return value


MailAddress = Annotated[str, AfterValidator(_address)]
Mailbox = Annotated[Text, AfterValidator(_mailbox)]
"""An address, with or without a name: `Example IT <it@example.com>`."""


def _is_on(value: object) -> bool:
    return str(value).lower() in {"true", "yes", "on"}


class MailTransportConfig(Section):
    """An SMTP server."""

    host: Text
    port: Port = 465
    secure: bool = True
    """TLS from the first byte."""
    start_tls: bool = False
    """Without `secure`: send nothing unless the connection could be made secure by STARTTLS."""
    ca_cert: FilePath | None = None
    """Authorities in PEM; left out: those that the system trusts."""
    timeout: Duration = timedelta(seconds=30)
    """How long the server may take for one answer."""
    auth: MailAuthConfig | None = None

    @classmethod
    def cross_check(cls, block: Block) -> Iterator[Fault]:
        if _is_on(block.get("start_tls", False)) and _is_on(block.get("secure", True)):
            text = "goes with `secure: false`; with `secure: true` there is TLS from the first byte"
            yield Fault.at(block.place_of("start_tls"), text)


class MailerConfig(Section):
    sender: Mailbox = Field(alias="from")
    admins: Annotated[tuple[MailAddress, ...], BeforeValidator(as_list)] = ()
    """Who is told of plans that a guard holds."""
    templates_path: FilePath | None = None
    """Left out: the templates that come with `aim`."""
    app: Literal["element-pro", "element-x", "element-classic"] = "element-pro"
    """The app that a welcome mail leads to."""
    web_url: HttpUrl | None = None
    """Where the organisation's web client is, for those without a phone."""
    login_hint: Literal["auto", "mxid", "email", "none"] = "auto"
    """What the app fills in at the login."""
    transport: MailTransportConfig


DEFAULT_DATA_DIR = Path("data")
