"""Makes a connection to the first server that can be used: open, TLS, log in, ask who it is.

In come the settings; out goes a Link. ldap3 opens the socket and encodes requests; TLS is verified by `tls`,
and what the server answers is read by `ber`. A server that can't be reached is passed over for the next; one
that refuses to log us in is not, for the others would refuse too, and might count it against the account.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ldap3 import ANONYMOUS, EXTERNAL, NONE, SASL, SIMPLE, Connection, Server
from ldap3.core.exceptions import LDAPException
from ldap3.operation.bind import bind_operation
from ldap3.operation.extended import extended_operation

from aim.bridges.ldap import faults, tls
from aim.bridges.ldap.channel import Channel, Line
from aim.bridges.ldap.settings import LdapSettings
from aim.directory.entries import texts
from aim.errors import SourceError, SourceInvalid, SourceUnavailable

_START_TLS = "1.3.6.1.4.1.1466.20037"
_ACTIVE_DIRECTORY = "1.2.840.113556.1.4.800"
_ROOT_DSE = (
    *("vendorName", "vendorVersion", "objectClass", "supportedControl", "supportedCapabilities"),
    *("namingContexts", "defaultNamingContext", "dnsHostName", "dsServiceName", "highestCommittedUSN"),
)


@dataclass(frozen=True, slots=True)
class RootDse:
    """What a server says about itself (RFC 4512, 5.1)."""

    vendor: str
    """`Active Directory`, `OpenLDAP`, what it calls itself, or empty."""
    controls: frozenset[str]
    naming_contexts: tuple[str, ...]
    default_naming_context: str
    host: str
    """The domain controller that answers, where that is one."""
    usn: int | None
    """highestCommittedUSN of Active Directory."""

    @property
    def is_active_directory(self) -> bool:
        return self.usn is not None


@dataclass(frozen=True, slots=True)
class Link:
    """A connection that is logged in."""

    channel: Channel
    uri: str
    address: str
    root: RootDse
    tls: tls.TlsFacts | None
    passed_over: tuple[SourceError, ...]
    """Why servers that come first in the settings are not used."""

    @property
    def server(self) -> str:
        """Tells servers apart, also those behind one name."""
        return f"{self.uri} {self.root.host}".strip()


@contextmanager
def connected(settings: LdapSettings, line: Line | None = None) -> Iterator[Link]:
    """A link, closed afterwards. `line` can cut it. Raises SourceUnavailable or SourceInvalid."""
    line = line or Line()
    connection, link = _first(settings, line)
    try:
        yield link
    finally:
        with suppress(LDAPException, OSError, ValueError):
            connection.unbind()
        _close(connection)


def _first(settings: LdapSettings, line: Line) -> tuple[Any, Link]:
    passed: list[SourceError] = []
    for uri in settings.uris:
        attempt = _Attempt(settings, uri, line)
        try:
            return attempt.connection, attempt.link(tuple(passed))
        except SourceError as error:
            attempt.close()
            if not isinstance(error, SourceUnavailable):
                raise
            passed.append(error)
    if len(passed) == 1:
        raise passed[0]
    causes = "; ".join(error.message for error in passed)
    raise SourceUnavailable(f"none of {len(passed)} LDAP servers can be used: {causes}", passed[0].remedy)


class _Attempt:
    """One server, tried."""

    def __init__(self, settings: LdapSettings, uri: str, line: Line) -> None:
        """Raises SourceInvalid if a certificate can't be read."""
        self._settings = settings
        self._uri = uri
        self._line = line
        secured = settings.start_tls or uri.lower().startswith("ldaps:")
        self._tls = tls.VerifyingTls(settings) if secured else None
        try:
            server = Server(uri, get_info=NONE, tls=self._tls, connect_timeout=settings.connect_timeout)
            self.connection: Any = Connection(
                server, auto_referrals=False, receive_timeout=max(1, round(settings.connect_timeout))
            )
        except LDAPException as error:
            raise SourceInvalid(
                f"{uri} is no LDAP uri: {error}", "Write source.uri like ldaps://ldap.example.com."
            ) from error
        self._server: Any = server
        self._channel = Channel(self.connection, uri, settings.connect_timeout, settings.bind_password)

    def link(self, passed_over: tuple[SourceError, ...]) -> Link:
        """All steps. Raises SourceUnavailable, or SourceInvalid if the server refuses."""
        self._open()
        if self._settings.start_tls and not self._server.ssl:
            self._start_tls()
        self._bind()
        self._channel.is_new = False
        root = self._root()
        self._channel.timeout = self._settings.read_timeout
        wire = self.connection.socket
        return Link(
            channel=self._channel,
            uri=self._uri,
            address=wire.getpeername()[0],
            root=root,
            tls=tls.facts(wire) if isinstance(wire, ssl.SSLSocket) else None,
            passed_over=passed_over,
        )

    def close(self) -> None:
        _close(self.connection)

    def _open(self) -> None:
        if not self._server.address_info:
            raise SourceUnavailable(
                f"{self._uri}: the name {self._server.host} is unknown",
                "Check source.uri, and that this machine's name service knows the server.",
            )
        try:
            self.connection.open(read_server_info=False)
        except (LDAPException, OSError, ValueError, TypeError) as error:
            if self._tls is not None and self._tls.failure is not None:
                raise tls.error_of(self._tls.failure, self._uri, self._server.host) from error
            raise SourceUnavailable(
                f"{self._uri}: no connection: {_socket_error(error)}",
                "Check source.uri, that the server runs, and that no firewall is in between.",
            ) from error
        self._line.hold(self.connection.socket)

    def _start_tls(self) -> None:
        result = self._channel.final(self._channel.send("extendedReq", extended_operation(_START_TLS)))
        if result.code != faults.SUCCESS:
            raise SourceInvalid(
                f"{self._uri}: the server refuses StartTLS ({result.code} {faults.told(result.message)})",
                "Give the server a certificate, or use an ldaps:// uri.",
            )
        if not self._channel.is_drained:
            # Somebody in between could have put it there, to be taken for what came under TLS.
            raise faults.malformed(self._uri, "something in clear text after the answer to StartTLS")
        assert self._tls is not None
        try:
            self._tls.wrap_socket(self.connection, do_handshake=True)
        except (OSError, ValueError) as error:
            raise tls.error_of(error, self._uri, self._server.host) from error
        self._line.hold(self.connection.socket)

    def _bind(self) -> None:
        result = self._channel.final(self._channel.send("bindRequest", self._bind_request()))
        if result.code in {faults.BUSY, faults.UNAVAILABLE}:
            raise faults.of_result(result, self._uri, "logging in")
        if result.code != faults.SUCCESS:
            error = faults.of_result(result, self._uri, "logging in")
            refused = faults.LoginRefused if result.code == faults.INVALID_CREDENTIALS else SourceInvalid
            raise refused(error.message, error.remedy)

    def _bind_request(self) -> Any:
        settings = self._settings
        try:
            if settings.is_external:
                return bind_operation(3, SASL, None, None, EXTERNAL, "")
            if settings.bind_dn is None:
                return bind_operation(3, ANONYMOUS)
            return bind_operation(3, SIMPLE, settings.bind_dn, settings.bind_password)
        except (LDAPException, ValueError):
            # Without its cause: that could quote the password.
            raise SourceInvalid(
                "source.bind_dn or source.bind_password can't be sent to an LDAP server",
                "They must not be empty, nor hold control characters.",
            ) from None

    def _root(self) -> RootDse:
        answer = self._channel.ask("", _ROOT_DSE)
        # Some servers show nobody what they are; that is no reason not to read.
        found: Mapping[str, Sequence[bytes | str]] = answer.entries[0].attributes if answer.entries else {}

        def first(name: str) -> str:
            return next(iter(texts(found, name)), "")

        usn = first("highestcommittedusn")
        is_ad = _ACTIVE_DIRECTORY in texts(found, "supportedcapabilities") and usn.isdecimal()
        is_openldap = "OpenLDAProotDSE" in texts(found, "objectclass")
        vendor = " ".join(filter(None, (first("vendorname"), first("vendorversion"))))
        return RootDse(
            vendor="Active Directory" if is_ad else "OpenLDAP" if is_openldap else faults.told(vendor),
            controls=frozenset(texts(found, "supportedcontrol")),
            naming_contexts=tuple(texts(found, "namingcontexts")),
            default_naming_context=first("defaultnamingcontext"),
            host=first("dsservicename") or first("dnshostname"),
            usn=int(usn) if is_ad else None,
        )


def _close(connection: Any) -> None:
    """Without a word, which may be out of place while TLS is being started."""
    wire = connection.socket
    if wire is not None:
        wire.close()


def _socket_error(error: BaseException) -> str:
    """The reason in what ldap3 made of it: of several addresses, the first one's."""
    history = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], list) else []
    return faults.told(str(history[0][0] if history else error).rpartition("] ")[2])
