"""How the stand-in of Microsoft Graph misbehaves when told to.

graph.faults.throttle(at("users/delta"), retry_after=2)
graph.faults.cut(at("groups/delta"))
graph.faults.mix(seed=3, rate=0.2)

A fault strikes requests that its predicate accepts, `times` of them (None: all). Those that are answers also
strike single requests in a batch.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from enum import Enum, auto
from typing import Any

Json = dict[str, Any]

HTML = (
    "<!DOCTYPE html><html><head><title>Proxy</title></head><body>The page could not be shown.</body></html>"
)


@dataclass(slots=True)
class Asked:
    """One request that came in; those in a batch are ones of their own, besides the batch."""

    method: str
    path: str
    """Percent-decoded, without query and version."""
    query: Mapping[str, str]
    kind: str
    """For counting: `token`, `users/delta`, `groups/*/members`, `$batch` …"""
    host: str
    """As the client calls us, with the port."""
    in_batch: bool = False
    authorized: bool = False
    """Whether it brought an Authorization header."""
    status: int | None = None
    """What it was answered; None if it got no (whole) answer."""

    def __str__(self) -> str:
        return f"{self.method} {self.path} → {self.status}"


Predicate = Callable[[Asked], bool]


def everything(asked: Asked) -> bool:
    """All requests to Graph, none for tokens."""
    return asked.kind not in {"token", "metadata"}


def at(kind: str) -> Predicate:
    """Requests of this kind."""
    return lambda asked: asked.kind == kind


class Way(Enum):
    ANSWER = auto()
    """Another answer instead."""
    ALTER = auto()
    """The right answer, changed."""
    CUT = auto()
    """Half of the right answer's body, then the connection ends."""
    LOSE = auto()
    """The connection ends without an answer."""
    HOLD = auto()
    """Nothing until it is released; then the right answer."""


@dataclass(slots=True)
class Fault:
    """A misbehaviour that was asked for; `left` tells how often it will still strike (None: always)."""

    way: Way
    when: Predicate
    left: int | None = 1
    status: int = 0
    code: str = ""
    headers: Callable[[], Mapping[str, str]] = dict
    html: bool = False
    alter: Callable[[Json], Json] | None = None
    expire: bool = False
    """For ANSWER: whether the client's tokens are worth nothing any more."""
    struck: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set when it has struck for the first time."""
    release: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def take(self, asked: Asked) -> bool:
        if self.left == 0 or not self.when(asked) or (asked.in_batch and self.way is not Way.ANSWER):
            return False
        if self.left is not None:
            self.left -= 1
        self.struck += 1
        self.reached.set()
        return True


class Faults:
    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._mix: _Mix | None = None

    def behave(self) -> None:
        """Takes all faults back, and lets held requests go."""
        for fault in self._faults:
            fault.left = 0
            fault.release.set()
        self._faults.clear()
        self._mix = None

    def strike(self, asked: Asked) -> Fault | None:
        """The fault that this request meets, if any."""
        fault = next((fault for fault in self._faults if fault.take(asked)), None)
        return fault or (self._mix.fault(asked) if self._mix else None)

    # Answers

    def throttle(
        self,
        when: Predicate = everything,
        times: int | None = 1,
        *,
        retry_after: int | None = 1,
        as_date: bool = False,
        status: int = 429,
    ) -> Fault:
        """429 or 503, with a Retry-After in seconds or as a date, or without one."""
        code = "TooManyRequests" if status == 429 else "serviceNotAvailable"

        def headers() -> Mapping[str, str]:
            if retry_after is None:
                return {}
            then = datetime.now(UTC) + timedelta(seconds=retry_after)
            return {"Retry-After": format_datetime(then, usegmt=True) if as_date else str(retry_after)}

        return self._add(Fault(Way.ANSWER, when, times, status, code, headers))

    def fail(
        self,
        when: Predicate = everything,
        times: int | None = 1,
        *,
        status: int = 500,
        code: str = "generalException",
    ) -> Fault:
        """This error."""
        return self._add(Fault(Way.ANSWER, when, times, status, code))

    def html(self, when: Predicate = everything, times: int | None = 1, *, status: int = 200) -> Fault:
        """A page of a proxy on the way."""
        return self._add(Fault(Way.ANSWER, when, times, status, html=True))

    def redirect(self, location: str, when: Predicate = everything, times: int | None = 1) -> Fault:
        return self._add(Fault(Way.ANSWER, when, times, 302, "", lambda: {"Location": location}, html=True))

    def gone(
        self, when: Predicate = everything, times: int | None = 1, *, code: str = "syncStateNotFound"
    ) -> Fault:
        """410 once; `GraphModel.deltas.expire` makes it last."""
        return self._add(Fault(Way.ANSWER, when, times, 410, code))

    def expire(self, when: Predicate = everything, times: int | None = 1) -> Fault:
        """Tokens end at this request, which is answered 401."""
        return self._add(Fault(Way.ANSWER, when, times, 401, "InvalidAuthenticationToken", expire=True))

    # The right answer, spoilt

    def alter(
        self, change: Callable[[Json], Json], when: Predicate = everything, times: int | None = 1
    ) -> Fault:
        """`change` gets a copy of the content."""
        return self._add(Fault(Way.ALTER, when, times, alter=change))

    def link(self, link: object, when: Predicate = everything, times: int | None = 1) -> Fault:
        """This instead of a nextLink, on pages that have one: nonsense, another host, an earlier page."""

        def change(content: Json) -> Json:
            return {**content, "@odata.nextLink": link} if "@odata.nextLink" in content else content

        return self.alter(change, when, times)

    def dead_end(self, when: Predicate = everything, times: int | None = 1) -> Fault:
        """A page without a nextLink or deltaLink, though it isn't the last one."""
        links = ("@odata.nextLink", "@odata.deltaLink")
        return self.alter(lambda content: {k: v for k, v in content.items() if k not in links}, when, times)

    def no_value(
        self, when: Predicate = everything, times: int | None = 1, *, instead: object = None
    ) -> Fault:
        """A page without `value`, or with one that is no list."""

        def change(content: Json) -> Json:
            rest = {name: value for name, value in content.items() if name != "value"}
            return rest if instead is None else {**rest, "value": instead}

        return self.alter(change, when, times)

    def twice(self, when: Predicate = everything, times: int | None = 1) -> Fault:
        """A page whose items come twice."""
        return self.alter(lambda content: {**content, "value": content["value"] * 2}, when, times)

    def cut(self, when: Predicate = everything, times: int | None = 1) -> Fault:
        return self._add(Fault(Way.CUT, when, times))

    def lose(self, when: Predicate = everything, times: int | None = 1) -> Fault:
        return self._add(Fault(Way.LOSE, when, times))

    def hold(self, when: Predicate = everything, times: int | None = 1) -> Fault:
        """No answer until `release` is set: for timeouts, or a moment to kill the client in."""
        return self._add(Fault(Way.HOLD, when, times))

    def mix(self, seed: int, rate: float, *, in_a_row: int = 2, retry_after: int = 0) -> None:
        """Any request to Graph meets something that passes, by chance, but the same one not more than
        `in_a_row` times one after the other: who tries again gets there."""
        self._mix = _Mix(random.Random(seed), rate, in_a_row, retry_after)

    def _add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault


class _Mix:
    """Faults by chance."""

    def __init__(self, chance: random.Random, rate: float, in_a_row: int, retry_after: int) -> None:
        self._chance = chance
        self._rate = rate
        self._in_a_row = in_a_row
        self._retry_after = retry_after
        self._struck: Counter[str] = Counter()

    def fault(self, asked: Asked) -> Fault | None:
        key = f"{asked.method} {asked.path} {sorted(asked.query.items())}"
        if (
            not everything(asked)
            or self._chance.random() >= self._rate
            or self._struck[key] >= self._in_a_row
        ):
            del self._struck[key]
            return None
        self._struck[key] += 1
        return self._any(in_batch=asked.in_batch)

    def _any(self, *, in_batch: bool) -> Fault:
        def wait() -> Mapping[str, str]:
            return {"Retry-After": str(self._retry_after)}

        answers = [
            Fault(Way.ANSWER, everything, 1, 429, "TooManyRequests", wait),
            Fault(Way.ANSWER, everything, 1, 503, "serviceNotAvailable", wait),
            Fault(Way.ANSWER, everything, 1, 504, "gatewayTimeout"),
            Fault(Way.ANSWER, everything, 1, 500, "generalException"),
        ]
        others = [
            Fault(Way.ANSWER, everything, 1, 502, html=True),
            Fault(Way.ANSWER, everything, 1, 200, html=True),
            Fault(Way.CUT, everything),
            Fault(Way.LOSE, everything),
        ]
        return self._chance.choice(answers if in_batch else answers + others)


def altered(fault: Fault, content: Json) -> Json:
    """What is sent instead of `content`, which stays as it is."""
    assert fault.alter
    return fault.alter(copy.deepcopy(content))
