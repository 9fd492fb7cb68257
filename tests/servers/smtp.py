"""An SMTP server on loopback that keeps what it is sent, and refuses on demand.

async with running_smtp(certificates, tls=True, users={"aim": "secret"}) as server:
    server.refuse["bob@example.com"] = ["451 4.7.1 later"]     # for that recipient, once
    settings = server.settings(secure=True, user="aim", password="secret")
    server.mails                                               # what was accepted, as messages
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from aim.notify.settings import SmtpSettings
from tests.servers.certificates import Certificates


@dataclass
class SmtpServer:
    """A running server, and the handler of aiosmtpd."""

    certificates: Certificates
    port: int = 0
    users: Mapping[str, str] = field(default_factory=dict)
    refuse: dict[str, list[str]] = field(default_factory=dict)
    """Recipient → answers to RCPT, one used up each time; an answer `drop` cuts the connection."""
    answers: list[str] = field(default_factory=list)
    """Answers to the content, each used up once; `drop` accepts it and cuts the connection."""
    data: list[str] = field(default_factory=list)
    """Answers to DATA instead of asking for the content, each used up once."""
    most_mails: int | None = None
    """So many mails over one connection, then 421."""
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    """Of each mail."""
    were_secure: list[bool] = field(default_factory=list)
    """Whether each came over TLS."""
    connections: int = 0
    served: dict[Session, int] = field(default_factory=dict)
    """How many mails each connection brought."""

    def settings(self, **more: Any) -> SmtpSettings:
        given: dict[str, Any] = {"secure": False, "ca_cert": self.certificates.ca, "timeout": 5.0}
        return SmtpSettings(host="127.0.0.1", port=self.port, **(given | more))

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        is_right = self.users.get(data.login.decode()) == data.password.decode()
        return AuthResult(success=is_right, handled=False)

    async def handle_MAIL(  # noqa: N802 - as aiosmtpd calls it
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.users and not session.authenticated:
            return "530 5.7.0 log in first"
        if self.most_mails is not None and self.served.get(session, 0) >= self.most_mails:
            return "421 4.7.0 too many mails over one connection"
        envelope.mail_from = address
        return "250 2.1.0 ok"

    async def handle_RCPT(  # noqa: N802 - as aiosmtpd calls it
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if answers := self.refuse.get(address):
            answer = answers.pop(0)
            if answer == "drop":
                _cut(server.transport)
            return answer
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as aiosmtpd calls it
        answer = self.answers.pop(0) if self.answers else "250 2.0.0 accepted"
        if answer.startswith(("2", "drop")):
            content = envelope.original_content
            assert content is not None
            mail = message_from_bytes(content, policy=policy.default)
            assert isinstance(mail, EmailMessage)
            self.mails.append(mail)
            self.recipients.append(list(envelope.rcpt_tos))
            assert server.transport is not None
            self.were_secure.append(server.transport.get_extra_info("sslcontext") is not None)
            self.served[session] = self.served.get(session, 0) + 1
        if answer == "drop":
            _cut(server.transport)
        return answer


class _Smtp(SMTP):
    """As aiosmtpd is, but that the answer to DATA can be chosen."""

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - as aiosmtpd calls it
        handler = self.event_handler
        if isinstance(handler, SmtpServer) and handler.data:
            await self.push(handler.data.pop(0))
        else:
            await super().smtp_DATA(arg)


def _cut(transport: asyncio.BaseTransport | None) -> None:
    """Ends a connection without a word, if it is open."""
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


@asynccontextmanager
async def running_smtp(
    certificates: Certificates,
    *,
    tls: bool = False,
    start_tls: bool = False,
    users: Mapping[str, str] | None = None,
    port: int = 0,
) -> AsyncIterator[SmtpServer]:
    """Starts one; with `tls` from the first byte, with `start_tls` on demand."""
    state = SmtpServer(certificates, users=users or {})
    context = None
    if tls or start_tls:
        certificate = certificates.server("127.0.0.1")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.cert, certificate.key)
    protocols: list[SMTP] = []

    def made() -> SMTP:
        state.connections += 1
        protocol = _Smtp(
            state,
            hostname="mail.example.com",
            enable_SMTPUTF8=True,
            tls_context=context if start_tls else None,
            authenticator=state.authenticate,
            auth_require_tls=not users,  # then there is no way to log in at all
        )
        protocols.append(protocol)
        return protocol

    loop = asyncio.get_running_loop()
    server = await loop.create_server(made, "127.0.0.1", port, ssl=context if tls else None)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for protocol in protocols:
            _cut(protocol.transport)
        await server.wait_closed()
