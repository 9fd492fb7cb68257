"""Models of everything about the homeserver and our own process. Plain settings, no behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from aim.config.document import Block
from aim.config.faults import Fault
from aim.config.fields import (
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


class MailTransportConfig(Section):
    """An SMTP server."""

    host: Text
    port: Port = 465
    secure: bool = True
    """TLS from the first byte."""
    auth: MailAuthConfig | None = None


class MailerConfig(Section):
    sender: Text = Field(alias="from")
    templates_path: FilePath | None = None
    """Left out: the templates that come with `aim`."""
    transport: MailTransportConfig


DEFAULT_DATA_DIR = Path("data")
