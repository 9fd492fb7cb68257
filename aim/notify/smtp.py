"""One connection to the SMTP server (RFC 5321): opened, secured, logged in; then letters are handed over.

In: settings and messages. Out: an AimError if the server can't be used; for each message what became of it,
where what matters is whether the server may have it: only what it surely has not is ever sent again.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import aiosmtplib
import structlog

from aim.errors import AimError, ConfigError
from aim.notify.settings import SmtpSettings
from aim.notify.templates import one_line

_log = structlog.get_logger()

_PATIENCE = 4
"""How much longer than for a command a server may take after the content (RFC 5321, 4.5.3.2.6)."""
_SHOWN = 200
"""How many characters of what a server says are passed on."""
_START_INPUT = 354
_CLOSING = 421
_Failure = (aiosmtplib.SMTPException, OSError, TimeoutError)
"""What the library raises when a command has no good answer."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The server has it."""

    refused: int = 0
    """How many of its recipients the server does not take."""


@dataclass(frozen=True, slots=True)
class PutOff:
    """The server has it not, and may take it later."""

    cause: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The server has it not, and will not take it."""

    cause: str


@dataclass(frozen=True, slots=True)
class Unsure:
    """The connection was lost after the content was sent: the server may have it."""

    cause: str


Verdict = Accepted | PutOff | Refused | Unsure


async def connect(settings: SmtpSettings) -> Connection:
    """Connects, with TLS as configured, and logs in. Raises AimError; ConfigError for a bad `ca_cert`."""
    client = aiosmtplib.SMTP(
        hostname=settings.host,
        port=settings.port,
        use_tls=settings.secure,
        start_tls=False,  # done below, where each step has an error of its own
        tls_context=_context(settings),
        timeout=settings.timeout,
    )
    try:
        await client.connect()
        if not settings.secure:
            await _secure(client, settings)
        if settings.user is not None:
            await _log_in(client, settings, settings.user, settings.password or "")
    except _Failure as error:
        client.close()
        raise _unusable(settings, error) from error
    except BaseException:
        client.close()
        raise
    return Connection(client, settings.timeout)


async def try_server(settings: SmtpSettings) -> None:
    """Connects and logs in as for sending, and sends nothing. Raises AimError."""
    connection = await connect(settings)
    try:
        await connection.ask()
    except _Failure as error:
        raise _unusable(settings, error) from error
    finally:
        await connection.close()


class Connection:
    """An open connection, for any number of letters one after the other."""

    def __init__(self, client: aiosmtplib.SMTP, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self.served = 0
        """How many messages it was used for that the server had a word on."""

    @property
    def is_open(self) -> bool:
        """False once the connection was lost, or can't be relied on any more."""
        return self._client.is_connected

    async def ask(self) -> None:
        """Asks for nothing, to see that the server answers. Raises what the library raises."""
        await self._client.noop()

    async def deliver(self, sender: str, recipients: Sequence[str], content: bytes) -> Verdict:
        """Hands one message over. Addresses are bare; lines of `content` end with CRLF."""
        try:
            verdict = await self._envelope(sender, recipients)
            if not isinstance(verdict, Accepted):
                return await self._reset(verdict)
            answer = await self._client.execute_command(b"DATA")
        except aiosmtplib.SMTPResponseException as error:
            # Of the commands above only MAIL refuses like this: that is about us, and somebody may mend it.
            return PutOff(f"the server does not let us send ({_code(error.code, error.message)})")
        except _Failure as error:
            self._client.close()
            return PutOff(f"the connection was lost before anything was sent ({type(error).__name__})")
        if answer.code != _START_INPUT:
            return await self._reset(_judged(answer.code, answer.message))
        return await self._content(content, verdict)

    async def _reset(self, verdict: Verdict) -> Verdict:
        """Makes the connection ready for another message, if it still can be used; gives `verdict` on."""
        self.served += 1
        try:
            await self._client.rset()
        except _Failure:
            self._client.close()
        return verdict

    async def _envelope(self, sender: str, recipients: Sequence[str]) -> Verdict:
        """MAIL and RCPT: who takes it. Raises what the library raises."""
        is_ascii = all(recipient.isascii() for recipient in recipients)
        if not is_ascii and not self._client.supports_extension("smtputf8"):
            return Refused("the server can't write to addresses that are not ASCII (SMTPUTF8)")
        # RFC 6531, 3.4
        await self._client.mail(sender, options=() if is_ascii else ("SMTPUTF8", "BODY=8BITMIME"))
        refused: list[aiosmtplib.SMTPRecipientRefused] = []
        for recipient in recipients:
            try:
                await self._client.rcpt(recipient, encoding="utf-8")
            except aiosmtplib.SMTPRecipientRefused as error:
                _log.debug("recipient refused", said=told(error.message))
                refused.append(error)
        if len(refused) < len(recipients):
            return Accepted(len(refused))
        # Who is refused for now may be taken later, even if others never will.
        least = min(refused, key=lambda error: error.code)
        return _judged(least.code, least.message)

    async def _content(self, content: bytes, accepted: Accepted) -> Verdict:
        """The message itself, and the server's word on it."""
        protocol = self._client.protocol
        try:
            if protocol is None:
                return PutOff("the connection was lost before anything was sent")
            # RFC 5321, 4.5.2
            protocol.write(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
            answer = await protocol.read_response(timeout=_PATIENCE * self._timeout)
        except _Failure as error:
            self._client.close()
            return Unsure(f"the connection was lost while the server had the mail ({type(error).__name__})")
        self.served += 1
        if answer.code == _CLOSING:
            self._client.close()
        verdict = _judged(answer.code, answer.message)
        return accepted if isinstance(verdict, Accepted) else verdict

    async def close(self) -> None:
        """Says goodbye, if anybody listens."""
        try:
            await self._client.quit()
        except _Failure:
            self._client.close()


def told(message: str) -> str:
    """What a server says, as one line of bearable length."""
    line = one_line(message)
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def _judged(code: int, message: str) -> Verdict:
    """What an answer means for the message (RFC 5321, 4.2.1)."""
    _log.debug("the mail server's answer", code=code, said=told(message))
    if 200 <= code < 300:
        return Accepted()
    cause = f"the server does not take it ({_code(code, message)})"
    return Refused(cause) if 500 <= code < 600 else PutOff(cause)


def _code(code: int, message: str) -> str:
    """The reply code, and the enhanced one (RFC 3463). Not the words: they may name people."""
    enhanced = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", message)
    return f"{code} {enhanced[0]}" if enhanced else str(code)


# -- to open a connection --------------------------------------------------------------------------------


async def _secure(client: aiosmtplib.SMTP, settings: SmtpSettings) -> None:
    """STARTTLS: where it is demanded, or offered by another machine. A password needs it there."""
    await client.ehlo()
    is_offered = client.supports_extension("starttls")
    if settings.start_tls and not is_offered:
        raise AimError(
            f"{_where(settings)} offers no STARTTLS, so the connection can't be made secure",
            "turn it on there, or use a port with TLS from the first byte and mailer.transport.secure: true",
        )
    is_near = is_loopback(settings.host)
    # The server of a machine itself mostly has a certificate that nobody can verify.
    if is_offered and (settings.start_tls or not is_near):
        await client.starttls()
        await client.ehlo()
    elif settings.user is not None and not is_near:
        raise AimError(
            f"{_where(settings)} offers no TLS: the password would go over the network unencrypted",
            "use mailer.transport.secure: true with the port that has TLS (465), or turn STARTTLS on there",
        )


async def _log_in(client: aiosmtplib.SMTP, settings: SmtpSettings, user: str, password: str) -> None:
    try:
        await client.login(user, password)
    except aiosmtplib.SMTPAuthenticationError as error:
        raise AimError(
            f"{_where(settings)} does not let us log in ({_code(error.code, error.message)})",
            "check mailer.transport.auth.user and mailer.transport.auth.pass",
        ) from error
    except (aiosmtplib.SMTPTimeoutError, aiosmtplib.SMTPServerDisconnected):
        raise
    except (aiosmtplib.SMTPException, ValueError) as error:
        raise AimError(
            f"{_where(settings)} offers no way to log in that we know, or none for this name and password",
            "leave mailer.transport.auth out if it lets us send without, or use its port for submission",
        ) from error


def is_loopback(host: str) -> bool:
    """Whether the server is this machine itself, so that nobody can listen on the way."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _context(settings: SmtpSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_cert)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"mailer.transport.ca_cert {settings.ca_cert} can't be used",
            "let it name a file with certificates in PEM",
        ) from error


def _where(settings: SmtpSettings) -> str:
    return f"the mail server {settings.host}:{settings.port}"


def _unusable(settings: SmtpSettings, error: BaseException) -> AimError:
    """The error for a connection that could not be opened."""
    where = _where(settings)
    inner = _innermost(error)
    if isinstance(inner, ssl.SSLCertVerificationError):
        why = inner.verify_message.rstrip(".")
        return AimError(
            f"the certificate of {where} can't be trusted: {why}",
            "let mailer.transport.host be the name in its certificate, and give the certificate of the"
            " authority that signed it as mailer.transport.ca_cert (PEM)",
        )
    if isinstance(inner, ssl.SSLError):
        why = (inner.reason or "TLS failed").replace("_", " ").lower()
        return AimError(
            f"{where} does not answer with TLS: {why}",
            "for a port with STARTTLS (587) set mailer.transport.secure: false and start_tls: true",
        )
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return AimError(
            f"{where} does not talk to us: {error.code} {told(error.message)}", "look at that server's log"
        )
    if isinstance(error, TimeoutError):
        return AimError(
            f"{where} did not answer within {settings.timeout:g} seconds",
            "check mailer.transport.host and port; a port with TLS from the first byte needs secure: true",
        )
    why = inner.strerror if isinstance(inner, OSError) and inner.strerror else "no connection came about"
    return AimError(f"{where} can't be reached: {why}", "check mailer.transport.host and port")


def _innermost(error: BaseException) -> BaseException:
    """What an error came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
