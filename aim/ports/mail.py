"""Who is told what, and the mail queue. Implemented by `notify` and `store`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from aim.directory.model import User


class MailEvent(StrEnum):
    """What people are told of by mail; each has a folder of templates."""

    REGISTERED = "registered"
    ACTIVATED = "activated"
    DEACTIVATED = "deactivated"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """Something that somebody is to be told."""

    event: MailEvent
    key: str
    """The same is never told twice."""
    localpart: str | None = None
    """Whom it is about; None for what admins are told."""
    display_name: str | None = None
    emails: Sequence[str] = ()
    """Where they can be reached; for what admins are told the mailer's own list is used."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What the template may say besides: `due_at` (datetime), `held` (sequence of sentences), `digest`."""


def welcome(user: User) -> Announcement:
    """That this user has an account now. Whoever finds that out first tells it: the key is one for each user
    and localpart."""
    return Announcement(
        event=MailEvent.REGISTERED,
        key=f"{MailEvent.REGISTERED} {user.id} {user.localpart}",
        localpart=user.localpart,
        display_name=user.display_name,
        emails=user.emails,
    )


class Announcer(Protocol):
    """Tells people. What it has taken is not lost."""

    async def announce(self, announcement: Announcement) -> None:
        """Does nothing if nobody can be reached, or no mailer is configured. Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A mail, rendered."""

    key: str
    """The same key is queued once, ever."""
    event: MailEvent
    localpart: str | None
    recipients: Sequence[str]
    subject: str
    text: str
    html: str
    message_id: str


@dataclass(frozen=True, slots=True)
class QueuedLetter:
    """A mail that waits to be sent."""

    id: int
    letter: Letter
    attempts: int
    """How often it was tried."""


class LetterStore(Protocol):
    """The mail queue. All raise StoreError."""

    async def post(self, letters: Sequence[Letter], now: datetime) -> None:
        """Queues these, but for those whose key was queued before. Of mails to administrators (`held`) only
        the last waits: it has what is held now."""
        ...

    async def take(self, now: datetime) -> QueuedLetter | None:
        """One that is due, the oldest first, marked as under way; None if none is."""
        ...

    async def sent(self, id_: int, now: datetime) -> None:
        """It was accepted: its text and recipients are dropped, its key stays."""
        ...

    async def again(self, id_: int, error: str, at: datetime) -> None:
        """It was surely not sent; due again at that time."""
        ...

    async def give_up(self, id_: int, error: str, now: datetime) -> None:
        """It will never be accepted, or nobody knows whether it was: not tried again."""
        ...

    async def interrupted(self) -> Sequence[QueuedLetter]:
        """Those that were under way when somebody was killed."""
        ...

    async def next_due(self) -> datetime | None:
        """When the next one is due; None if none waits."""
        ...
