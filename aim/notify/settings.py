"""What the mailer needs to know, as plain frozen data; made of the configuration by `settings_of`."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import parseaddr
from pathlib import Path
from typing import Literal

from aim.config.server import MailerConfig

LoginHint = Literal["auto", "mxid", "email", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpSettings:
    """One SMTP server, and how we log in there."""

    host: str
    port: int = 465
    secure: bool = True
    """TLS from the first byte (RFC 8314)."""
    start_tls: bool = False
    """Without `secure`: nothing is sent unless STARTTLS (RFC 3207) made the connection secure."""
    user: str | None = None
    """None: without a login."""
    password: str | None = field(default=None, repr=False)
    ca_cert: Path | None = None
    """Authorities in PEM; None: those that the system trusts."""
    timeout: float = 30.0
    """Seconds that the server may take for one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MailSettings:
    """Who writes, in which words, and through which server."""

    sender: str
    """An address, with or without a name: `Example IT <it@example.com>`."""
    smtp: SmtpSettings
    server_name: str
    """Of the homeserver: the end of everybody's MXID, and what the app is to connect to."""
    admins: tuple[str, ...] = ()
    """Who is told of held plans."""
    templates_path: Path | None = None
    """Templates of the organisation's own, which go before those that come with `aim`."""
    app: str = "element-pro"
    """A key of `links.APPS`."""
    web_url: str | None = None
    """The organisation's web client."""
    login_hint: LoginHint = "auto"

    @property
    def sender_address(self) -> str:
        """The address alone: where refused mail comes back to."""
        return parseaddr(self.sender)[1]


def settings_of(mailer: MailerConfig, server_name: str) -> MailSettings:
    """The settings that the section `mailer` of the configuration makes, on the homeserver `server_name`."""
    transport = mailer.transport
    auth = transport.auth
    return MailSettings(
        sender=mailer.sender,
        server_name=server_name,
        admins=mailer.admins,
        templates_path=mailer.templates_path,
        app=mailer.app,
        web_url=mailer.web_url,
        login_hint=mailer.login_hint,
        smtp=SmtpSettings(
            host=transport.host,
            port=transport.port,
            secure=transport.secure,
            start_tls=transport.start_tls,
            user=auth.user if auth else None,
            password=auth.password.get_secret_value() if auth else None,
            ca_cert=transport.ca_cert,
            timeout=transport.timeout.total_seconds(),
        ),
    )
