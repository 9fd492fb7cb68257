"""Who may do what: tokens and their roles (RFC 7644, 7; RFC 6750).

In comes what the configuration grants, and the Authorization header of a request; out goes an Access, or a
ScimError. Of a token only its SHA-256 is kept; all are compared, each in constant time. Whoever shows a wrong
token is answered the later the more of them came from their address, and each one is told to `refused`. Only
then is the homeserver asked about a token that is none of ours: guessing here is no way to keep it busy.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from aim.bridges.scim.errors import ScimError
from aim.ports.scim import ScimKind

ADMIN_FOR = 60
"""Seconds for which an answer of the homeserver is believed."""
_FREE = 3
"""Wrong tokens of an address that cost nothing."""
_LONGEST = 4.0
"""Seconds that an answer is held back at most."""
_FORGOTTEN = 300
"""Seconds after which the wrong tokens of an address are forgotten."""
_AT_ONCE = 8
"""Tokens of one address that the homeserver is asked about, or that wait for it, at the same time."""
_MOST_ADDRESSES = 4096
_MOST_ADMINS = 1024

_SCOPE = {ScimKind.USER: "users", ScimKind.GROUP: "groups"}


class Refusal(StrEnum):
    """Why somebody was refused."""

    MISSING = "missing"
    WRONG = "wrong"
    FORBIDDEN = "forbidden"


@dataclass(frozen=True, slots=True)
class Access:
    """What the sender of one request may do."""

    roles: frozenset[str]
    """`access:scope`, access being read, write or *, scope users, groups or *."""
    refused: Callable[[Refusal], None] = field(default=lambda _: None, compare=False, repr=False)
    """Told each time something is not granted."""

    def may(self, access: str, kind: ScimKind) -> bool:
        """`access`: read or write."""
        scope = _SCOPE[kind]
        return any(f"{one}:{other}" in self.roles for one in (access, "*") for other in (scope, "*"))

    def require(self, access: str, kind: ScimKind) -> None:
        """ScimError 403 if that is not granted."""
        if not self.may(access, kind):
            self.refused(Refusal.FORBIDDEN)
            raise ScimError(403, f"this token may not {access} {_SCOPE[kind]}")


@dataclass(frozen=True, slots=True)
class Grant:
    """Roles of the holder of a token, or (None) of each admin of the homeserver who shows an access token."""

    token: str | None
    roles: Iterable[str]


class Rights:
    """Tells who sends a request."""

    def __init__(
        self,
        grants: Iterable[Grant],
        is_admin: Callable[[str], Awaitable[bool]] | None = None,
        refused: Callable[[Refusal], None] = lambda _: None,
        wrong: Callable[[str], None] = lambda _: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`is_admin` says whether an access token is that of an admin of the homeserver; None: none is.
        `wrong` is told the address each time a wrong token comes."""
        granted = list(grants)
        self._tokens = [
            (_hash(grant.token), frozenset(grant.roles)) for grant in granted if grant.token is not None
        ]
        self._admins = frozenset(role for grant in granted if grant.token is None for role in grant.roles)
        self._is_admin = is_admin if self._admins else None
        self._refused = refused
        self._wrong = wrong
        self._known: OrderedDict[bytes, tuple[bool, float]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[bool]] = {}
        self._asking_from: Counter[str] = Counter()
        """Address → how many of them are under way."""
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._clock = clock
        self._sleep = sleep

    async def access(self, authorization: str | None, address: str) -> Access:
        """Who sends this header from there. ScimError 401 for a missing or a wrong token, 429 where too many
        unknown ones come at once.

        Raises what `is_admin` raises.
        """
        scheme, _, token = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            self._refused(Refusal.MISSING)
            raise _unauthorised("a token is needed: Authorization: Bearer …")
        digest = _hash(token.strip())
        roles = self._granted(digest) or await self._admin(digest, token.strip(), address)
        if roles:
            return Access(roles, self._refused)
        self._count_wrong(address)
        raise _unauthorised("this token is not known", error="invalid_token")

    def _count_wrong(self, address: str) -> None:
        self._refused(Refusal.WRONG)
        self._wrong(address)

    def _granted(self, digest: bytes) -> frozenset[str]:
        """The roles of a token; all tokens are compared, whichever it is."""
        found: frozenset[str] = frozenset()
        for known, roles in self._tokens:
            if hmac.compare_digest(known, digest):
                found |= roles
        return found

    async def _admin(self, digest: bytes, token: str, address: str) -> frozenset[str]:
        """The roles of an admin if the token is that of one; whoever shows another one has waited."""
        known = self._remembered(digest)
        if known is None and self._is_admin is not None:
            known = await self._answer(digest, token, address)
        elif not known:
            await self._slow_down(address)
        return self._admins if known else frozenset()

    def _remembered(self, digest: bytes) -> bool | None:
        """What the homeserver said of it a short while ago."""
        known = self._known.get(digest)
        return known[0] if known is not None and self._clock() < known[1] else None

    async def _answer(self, digest: bytes, token: str, address: str) -> bool:
        """What the homeserver says of it; whoever shows the same one meanwhile waits for the same answer."""
        asking = self._asking.get(digest)
        if asking is None:
            if self._asking_from[address] >= _AT_ONCE:
                self._count_wrong(address)
                raise ScimError(429, "too many unknown tokens at once", headers={"Retry-After": "5"})
            self._asking_from[address] += 1
            asking = self._asking[digest] = asyncio.create_task(self._ask(digest, token, address))

            def over(asked: asyncio.Task[bool]) -> None:
                del self._asking[digest]
                self._asking_from -= Counter([address])
                if not asked.cancelled():
                    asked.exception()  # whoever asked may have gone

            asking.add_done_callback(over)
        return await asyncio.shield(asking)

    async def _ask(self, digest: bytes, token: str, address: str) -> bool:
        assert self._is_admin is not None
        await self._slow_down(address)
        is_wrong = False
        try:
            found = await self._is_admin(token)
            is_wrong = not found
        finally:
            if not is_wrong:
                self._forgive(address)
        self._known[digest] = found, self._clock() + ADMIN_FOR
        while len(self._known) > _MOST_ADMINS:
            self._known.popitem(last=False)
        return found

    def _forgive(self, address: str) -> None:
        """The last one counted was not wrong."""
        count, last = self._failures.get(address, (0, 0.0))
        if count > 1:
            self._failures[address] = count - 1, last
        else:
            self._failures.pop(address, None)

    async def _slow_down(self, address: str) -> None:
        """Counts a wrong token, and waits."""
        count, last = self._failures.pop(address, (0, 0.0))
        now = self._clock()
        count = 1 if now - last > _FORGOTTEN else count + 1
        self._failures[address] = count, now
        while len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)
        if count > _FREE:
            await self._sleep(min(0.25 * 2 ** min(count - _FREE - 1, 10), _LONGEST))


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _unauthorised(detail: str, error: str | None = None) -> ScimError:
    challenge = 'Bearer realm="SCIM"' + (f', error="{error}"' if error else "")
    return ScimError(401, detail, headers={"WWW-Authenticate": challenge})
