"""A small LDAP server that stands in where no real one misbehaves on demand, and that judges its clients.

    stand_in = new_stand_in(organisation(2500), Manners(max_page_size=1000))
    stand_in.on_search(fail(ADMIN_LIMIT_EXCEEDED, after=500), page=2)

By itself it is an Active Directory with two limits that Samba does not have: entries of a page, and values of
an attribute, beyond which it answers `member;range=0-1499`. `answers` has what it may do wrong, `malformed`
what it may send that is no LDAP. It runs in a thread of its own, so that clients may block.

What a client does wrong is in `violations` and fails the test: malformed messages, any write, a cookie that
was not given or with other parameters than before, a message id twice at a time.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Protocol, Self

import pytest

from tests.servers import ber
from tests.servers import ldap_messages as ldap
from tests.servers.answers import (
    Change,
    Done,
    Entry,
    Hold,
    Step,
    Steps,
    insert,
)
from tests.servers.ber import Malformed
from tests.servers.certificates import Certificate, Certificates
from tests.servers.ldap_messages import Abandon, Bind, Extended, Request, Search, Unbind, Write
from tests.servers.selection import BadRange, select
from tests.servers.wire import HungUp, Wire

BASE = "DC=example,DC=com"
PEOPLE = f"OU=people,{BASE}"
READER, PASSWORD = f"CN=reader,{BASE}", "password"
_HOST = "127.0.0.1"


def _root() -> dict[str, list[bytes]]:
    """The root DSE of an Active Directory (MS-ADTS, section 3.1.1.3.2), as far as clients ask for it."""
    return {
        "objectClass": [b"top"],
        "defaultNamingContext": [BASE.encode()],
        "namingContexts": [BASE.encode()],
        "supportedLDAPVersion": [b"3"],
        "supportedControl": [ldap.PAGED_RESULTS.encode()],
        "supportedExtension": [ldap.START_TLS.encode()],
        "supportedCapabilities": [b"1.2.840.113556.1.4.800"],
        "dnsHostName": [b"dc1.example.com"],
        "dsServiceName": [f"CN=NTDS Settings,CN=DC1,CN=Servers,CN=Sites,CN=Configuration,{BASE}".encode()],
        "highestCommittedUSN": [b"1000"],
    }


@dataclass(slots=True, kw_only=True)
class Manners:
    """How a server behaves; may be changed while it runs."""

    max_page_size: int = 1000
    """Of a page, and of a search without pages."""
    max_values: int = 1500
    """Of one attribute of an entry."""
    accounts: dict[str, str] = field(default_factory=lambda: {READER: PASSWORD})
    """Who may bind, and the password; by StartTLS or TLS as well as without."""
    anonymous: bool = False
    """Whether who has not bound may search."""
    root: dict[str, list[bytes]] = field(default_factory=_root)
    """The root DSE, which everybody may read."""
    bind_result: tuple[int, str] | None = None
    """What every bind is answered, whoever it is."""
    start_tls_result: int = ldap.SUCCESS
    start_tls_injection: bytes = b""
    """What follows the answer to StartTLS without TLS, as if somebody on the way had put it there."""
    endless: bool = False
    """Whether there is always another page: the first one once more behind the last."""
    empty_pages: int = 0
    """So many pages without entries before each other one, as RFC 2696 allows."""


@dataclass(slots=True)
class _Rule:
    change: Change
    page: int | None
    left: int | None

    def takes(self, page: int) -> bool:
        if self.left == 0 or self.page not in (None, page):
            return False
        if self.left is not None:
            self.left -= 1
        return True


class StandIn:
    """A server with these `entries`, which may be changed while it runs, on ports of its own."""

    def __init__(
        self,
        entries: Iterable[Entry],
        certificates: Certificates,
        manners: Manners | None = None,
        certificate: Certificate | None = None,
    ) -> None:
        self.entries = list(entries)
        self.manners = manners or Manners()
        self.requests: list[Request] = []
        """All that came in, oldest first."""
        self.connections = 0
        """How many there have been."""
        self.violations: list[str] = []
        """Emptied by a test that expects them."""
        self.ca = certificates.ca
        """What clients are to trust."""
        self.port = self.tls_port = 0
        self.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.tls.load_cert_chain((certificate or certificates.server("localhost", _HOST)).both)
        self._rules: list[_Rule] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="stand-in")

    @property
    def uri(self) -> str:
        """For plain LDAP and StartTLS."""
        return f"ldap://{_HOST}:{self.port}"

    @property
    def tls_uri(self) -> str:
        return f"ldaps://{_HOST}:{self.tls_port}"

    @property
    def searches(self) -> list[Search]:
        """All searches but those of the root DSE."""
        return [request for request in self.requests if isinstance(request, Search) and request.base]

    def on_search(self, change: Change, *, page: int | None = None, times: int | None = None) -> None:
        """Changes what searches are answered, but those of the root DSE.

        `page`: only that page, counted from 1. `times`: no more than so often. Several changes are made in
        turn.
        """
        self._rules.append(_Rule(change, page, times))

    def hold(self, *, after: int = 0, page: int | None = None) -> Hold:
        """Interrupts one answer after so many entries, until `release` is called."""
        assert self._loop
        hold = Hold(self._loop)
        self.on_search(insert(hold, after=after), page=page, times=1)
        return hold

    def behave(self) -> None:
        """Takes all changes back."""
        self._rules.clear()

    def changed(self, steps: Steps, page: int) -> Steps:
        for rule in [rule for rule in self._rules if rule.takes(page)]:
            steps = rule.change(steps)
        return steps

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task
            tasks.add(task)
            try:
                await _Connection(self, reader, writer).serve()
            except asyncio.CancelledError:
                # By us, below; a stream's task that is cancelled counts as broken.
                pass
            finally:
                tasks.discard(task)

        plain = await asyncio.start_server(accept, _HOST, 0)
        over_tls = await asyncio.start_server(accept, _HOST, 0, ssl=self.tls)
        self.port, self.tls_port = (server.sockets[0].getsockname()[1] for server in (plain, over_tls))
        self._started.set()
        await self._stop.wait()
        plain.close()
        over_tls.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a cookie goes on."""

    search: Search
    start: int
    page: int
    empty: int


class _Connection:
    """One client."""

    def __init__(self, server: StandIn, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._bound = False
        self._closed = False
        self._running: dict[int, asyncio.Task[None]] = {}
        self._places: dict[bytes, _Place] = {}
        self._numbers = itertools.count(1)

    async def serve(self) -> None:
        self._server.connections += 1
        try:
            while message := await ber.receive(self._reader):
                request = ldap.parse(message)
                self._server.requests.append(request)
                if isinstance(request, Unbind):
                    break
                await self._handle(request)
        except Malformed as error:
            # Of a client that we have hung up on, the rest of a message can't come.
            if not self._closed:
                await self._give_up(f"malformed: {error}")
        except ConnectionError:
            pass
        finally:
            await self._end()

    async def _end(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        try:
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            # Also when the server is stopped meanwhile.
            self._writer.close()
        # A client that does not end TLS properly is none of our business.
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), 1)

    async def _give_up(self, why: str) -> None:
        self._blame(why)
        response = ldap.extended_response(ldap.PROTOCOL_ERROR, why, ldap.NOTICE_OF_DISCONNECTION)
        self._writer.write(ldap.message(0, response))
        # Closed with something unread, a connection is reset, and the client may not get the notice.
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                while await self._reader.read(65536):
                    pass

    def _blame(self, what: str) -> None:
        self._server.violations.append(what)

    async def _handle(self, request: Request) -> None:
        if request.id in self._running:
            self._blame(f"message id {request.id} used while it is")
        match request:
            case Bind():
                await self._bind(request)
            case Search():
                answer = self._server.changed(*self._answer(request)) if request.base else self._root(request)
                task = asyncio.create_task(self._send(answer, request.id))
                self._running[request.id] = task
                task.add_done_callback(lambda _: self._running.pop(request.id, None))
            case Abandon() if request.target in self._running:
                self._running[request.target].cancel()
            case Abandon():
                pass
            case Extended(name=ldap.START_TLS):
                await self._start_tls(request)
            case Extended():
                await self._say(request, ldap.extended_response(ldap.PROTOCOL_ERROR, "unknown"))
            case Write():
                self._blame(f"a write: {request.kind}")
                response = ldap.write_response(request.kind, ldap.UNWILLING_TO_PERFORM, "read-only")
                await self._say(request, response)

    async def _say(self, request: Request, operation: bytes) -> None:
        self._writer.write(ldap.message(request.id, operation))
        await self._writer.drain()

    async def _bind(self, bind: Bind) -> None:
        if self._running:
            self._blame("a bind while a search runs")
        result = self._server.manners.bind_result or self._judged(bind)
        self._bound = result[0] == ldap.SUCCESS and bool(bind.name)
        await self._say(bind, ldap.bind_response(*result))

    def _judged(self, bind: Bind) -> tuple[int, str]:
        if bind.mechanism is not None:
            return ldap.AUTH_METHOD_NOT_SUPPORTED, "simple binds only"
        if not bind.name or self._server.manners.accounts.get(bind.name) == bind.credentials.decode():
            return ldap.SUCCESS, ""
        # As an Active Directory says it: 52e is a wrong password.
        return (
            ldap.INVALID_CREDENTIALS,
            "80090308: LdapErr: DSID-0C090447, AcceptSecurityContext error, data 52e, v3839",
        )

    async def _start_tls(self, request: Extended) -> None:
        manners = self._server.manners
        response = ldap.extended_response(manners.start_tls_result, "", ldap.START_TLS)
        self._writer.write(ldap.message(request.id, response) + manners.start_tls_injection)
        await self._writer.drain()
        if manners.start_tls_result == ldap.SUCCESS:
            await self._writer.start_tls(self._server.tls)

    def _root(self, search: Search) -> Steps:
        root = Entry("", self._server.manners.root)
        if search.scope != ldap.BASE:
            return [Done(ldap.NO_SUCH_OBJECT)]
        return [*select([root], search, self._server.manners.max_values), Done()]

    def _answer(self, search: Search) -> tuple[Steps, int]:
        """The right answer, and which page it is."""
        if refusal := self._refusal(search):
            return [refusal], 1
        place = self._place(search)
        if place is None:
            self._blame("a cookie that was not given, or with another search")
            return [Done(ldap.UNWILLING_TO_PERFORM, "bad cookie")], 1
        if place.empty:
            return [self._page(replace(place, page=place.page + 1, empty=place.empty - 1))], place.page
        return self._entries(search, place), place.page

    def _refusal(self, search: Search) -> Done | None:
        manners = self._server.manners
        if not (self._bound or manners.anonymous):
            return Done(ldap.OPERATIONS_ERROR, "a successful bind must be completed on the connection")
        if any(control.critical and name != ldap.PAGED_RESULTS for name, control in search.controls.items()):
            return Done(ldap.UNAVAILABLE_CRITICAL_EXTENSION)
        if not any(entry.dn.lower() == search.base.lower() for entry in self._server.entries):
            return Done(ldap.NO_SUCH_OBJECT, matched=BASE)
        return None

    def _place(self, search: Search) -> _Place | None:
        """Where it begins or goes on; None if its cookie is none of ours."""
        same = replace(
            search,
            id=0,
            controls={name: c for name, c in search.controls.items() if name != ldap.PAGED_RESULTS},
        )
        if not search.cookie:
            return _Place(same, 0, 1, self._server.manners.empty_pages if search.page_size else 0)
        place = self._places.pop(search.cookie, None)
        return place if place and place.search == same else None

    def _page(self, following: _Place | None) -> Done:
        cookie = b""
        if following:
            cookie = f"cookie {next(self._numbers)}".encode()
            self._places[cookie] = following
        return Done(controls=(ldap.paging(cookie),))

    def _entries(self, search: Search, place: _Place) -> Steps:
        manners = self._server.manners
        try:
            found = select(self._server.entries, search, manners.max_values)
        except BadRange as error:
            return [Done(ldap.OPERATIONS_ERROR, str(error))]
        if search.page_size is None:
            limit = min(search.size_limit or manners.max_page_size, manners.max_page_size)
            code = ldap.SIZE_LIMIT_EXCEEDED if len(found) > limit else ldap.SUCCESS
            return [*found[:limit], Done(code)]
        stop = place.start + min(search.page_size, manners.max_page_size)
        following = replace(place, start=stop, page=place.page + 1, empty=manners.empty_pages)
        if stop < len(found) and search.page_size:
            return [*found[place.start : stop], self._page(following)]
        return [
            *found[place.start : stop],
            self._page(replace(following, start=0) if manners.endless else None),
        ]

    async def _send(self, steps: Sequence[Step], identity: int) -> None:
        wire = Wire(self._writer, identity)
        try:
            for step in steps:
                await wire.take(step)
        except HungUp:
            self._closed = True
        except ConnectionError:
            # The client went first.
            pass


def domain() -> list[Entry]:
    """A domain and the unit PEOPLE in it."""
    return [
        Entry(BASE, {"objectClass": [b"top", b"domain", b"domainDNS"], "name": [b"example"]}),
        Entry(
            PEOPLE, {"objectClass": [b"top", b"organizationalUnit"], "ou": [b"people"], "name": [b"people"]}
        ),
    ]


def person(number: int) -> Entry:
    """The account `user0` and so on, below PEOPLE."""
    name = f"user{number}"
    return Entry(
        f"CN={name},{PEOPLE}",
        {
            "objectClass": [b"top", b"person", b"organizationalPerson", b"user"],
            "cn": [name.encode()],
            "name": [name.encode()],
            "sAMAccountName": [name.encode()],
            "displayName": [f"User {number}".encode()],
            "mail": [f"{name}@example.com".encode()],
            "objectGUID": [number.to_bytes(16, "big")],
            "objectSid": [_sid(10_000 + number)],
            "primaryGroupID": [b"513"],
            "userAccountControl": [b"512"],
        },
    )


def group(name: str, members: Iterable[str]) -> Entry:
    """A group below PEOPLE."""
    attributes = {
        "objectClass": [b"top", b"group"],
        "cn": [name.encode()],
        "name": [name.encode()],
        "sAMAccountName": [name.encode()],
        "objectGUID": [name.encode().ljust(16, b"\0")[:16]],
        "objectSid": [_sid(1000)],
        "groupType": [b"-2147483646"],
    }
    if values := [dn.encode() for dn in members]:
        attributes["member"] = values
    return Entry(f"CN={name},{PEOPLE}", attributes)


def organisation(people: int) -> list[Entry]:
    """A domain with so many people, all of whom are in the group `everyone`."""
    persons = [person(number) for number in range(people)]
    return [*domain(), *persons, group("everyone", [entry.dn for entry in persons])]


def _sid(number: int) -> bytes:
    """The security identifier of a number in the domain (MS-DTYP, section 2.4.2.2)."""
    return struct.pack("<BB6s5I", 1, 5, (5).to_bytes(6, "big"), 21, 1, 2, 3, number)


class NewStandIn(Protocol):
    """What the fixture `new_stand_in` gives."""

    def __call__(
        self, entries: Iterable[Entry], manners: Manners | None = None, certificate: Certificate | None = None
    ) -> StandIn: ...


@pytest.fixture
def new_stand_in(certificates: Certificates) -> Iterator[NewStandIn]:
    """A function that starts servers with these entries; they are stopped and heard when the test ends."""
    servers: list[StandIn] = []
    with ExitStack() as stack:

        def start(
            entries: Iterable[Entry], manners: Manners | None = None, certificate: Certificate | None = None
        ) -> StandIn:
            server = stack.enter_context(StandIn(entries, certificates, manners, certificate))
            servers.append(server)
            return server

        yield start
    assert [violation for server in servers for violation in server.violations] == []
