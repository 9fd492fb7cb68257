"""What a search is answered, as a list of steps, and the changes that make a good answer a bad one.

`stand_in.on_search(fail(ADMIN_LIMIT_EXCEEDED, after=500), page=2)`: a change takes the steps that would be
right and gives those that are taken. All changes that have an `after` come into effect after so many entries,
or after all if there are fewer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.servers import ldap_messages as ldap


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry; in an answer, what is shown of it."""

    dn: str
    attributes: Mapping[str, Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Reference:
    """A continuation reference among the entries (RFC 4511, section 4.5.3)."""

    uris: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The result at the end."""

    code: int = ldap.SUCCESS
    message: str = ""
    matched: str = ""
    referrals: tuple[str, ...] = ()
    controls: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Raw:
    """Any bytes, made for the message id of the search."""

    make: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(slots=True)
class Hold:
    """A moment within an answer: `reached` is set when it comes, and `release` is called to end it."""

    loop: asyncio.AbstractEventLoop
    reached: threading.Event = field(default_factory=threading.Event)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def release(self) -> None:
        self.loop.call_soon_threadsafe(self._released.set)

    async def wait(self) -> None:
        self.reached.set()
        await self._released.wait()


@dataclass(frozen=True, slots=True)
class Cut:
    """Closes the connection; with `reset` as a crash does, else as if all was well."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class CutAfter:
    """Closes the connection when so many further bytes are sent."""

    count: int


@dataclass(frozen=True, slots=True)
class Trickle:
    """Sends everything further in pieces of so many bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Renumber:
    """Everything further has this message id."""

    id: int


Step = Entry | Reference | Done | Raw | Pause | Hold | Cut | CutAfter | Trickle | Renumber
Steps = list[Step]
Change = Callable[[Steps], Steps]


def _split(steps: Steps, after: int) -> tuple[Steps, Steps]:
    ends = [number for number, step in enumerate(steps, 1) if isinstance(step, Entry)]
    at = ends[min(after, len(ends)) - 1] if after and ends else 0
    return steps[:at], steps[at:]


def insert(*further: Step, after: int = 0) -> Change:
    """Has these steps as well."""

    def change(steps: Steps) -> Steps:
        before, behind = _split(steps, after)
        return [*before, *further, *behind]

    return change


def end(*last: Step, after: int = 0) -> Change:
    """Has these steps instead of all others."""
    return lambda steps: [*_split(steps, after)[0], *last]


def fail(code: int, message: str = "", after: int = 0) -> Change:
    """Ends with an error."""
    return end(Done(code, message), after=after)


def refer(*uris: str, after: int = 0) -> Change:
    """Ends with a referral as the result."""
    return end(Done(ldap.REFERRAL, referrals=uris), after=after)


def mention(*uris: str, after: int = 0) -> Change:
    """Has a continuation reference among the entries, as there is at the base of a domain."""
    return insert(Reference(uris), after=after)


def cut(after: int = 0, *, reset: bool = False) -> Change:
    """Closes the connection."""
    return end(Cut(reset), after=after)


def cut_after(count: int) -> Change:
    """Closes the connection after so many bytes of the answer."""
    return insert(CutAfter(count))


def delay(seconds: float, after: int = 0) -> Change:
    """Is silent for a while."""
    return insert(Pause(seconds), after=after)


def send(make: Callable[[int], bytes], after: int = 0) -> Change:
    """Sends any bytes, for instance of MALFORMED, and closes the connection."""
    return end(Raw(make), Cut(), after=after)


def slip_in(make: Callable[[int], bytes], after: int = 0) -> Change:
    """Sends any bytes, for instance of UNUSUAL, and goes on as if nothing was."""
    return insert(Raw(make), after=after)


def disconnect(code: int = ldap.UNAVAILABLE, after: int = 0) -> Change:
    """Gives notice of disconnection (RFC 4511, section 4.4.1) and closes the connection."""
    response = ldap.extended_response(code, "shutting down", ldap.NOTICE_OF_DISCONNECTION)
    return send(lambda _: ldap.message(0, response), after)


def trickle(size: int = 1) -> Change:
    """Sends the answer in pieces of so many bytes, which is nothing that a client may mind."""
    return insert(Trickle(size))


def renumber(identity: int, after: int = 0) -> Change:
    """Answers with a message id that is not the search's."""
    return insert(Renumber(identity), after=after)


def unpaged(steps: Steps) -> Steps:
    """Leaves out the controls of the result."""
    return [replace(step, controls=()) if isinstance(step, Done) else step for step in steps]
