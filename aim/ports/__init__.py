"""Ports: what the inner layers ask of the outside, in the words of the domain. Tiny on purpose.

The readers can't write: planning is handed these and nothing else. Wired in `app`.
"""

from __future__ import annotations

from aim.ports.accounts import (
    AccountReader,
    AccountStore,
    AccountWriter,
    Registrar,
    StoredAccount,
    StoredAccounts,
)
from aim.ports.homeserver import HomeserverReader, HomeserverWriter, NewRoom
from aim.ports.mail import (
    Announcement,
    Announcer,
    Letter,
    LetterStore,
    MailEvent,
    QueuedLetter,
    welcome,
)
from aim.ports.mirror import (
    MemberKind,
    MirrorChanges,
    MirrorContents,
    MirroredRoom,
    MirrorFacts,
    MirrorRecord,
    MirrorStore,
    Stamp,
    StateKey,
    StoredEvent,
    StoredMember,
    StoredMembers,
)
from aim.ports.recorded import AuditReader, Executor, Outcome, OutcomeStatus, RecordedReader, Recorder
from aim.ports.source import HasEntries, Source

__all__ = [
    "AccountReader",
    "AccountStore",
    "AccountWriter",
    "Announcement",
    "Announcer",
    "AuditReader",
    "Executor",
    "HasEntries",
    "HomeserverReader",
    "HomeserverWriter",
    "Letter",
    "LetterStore",
    "MailEvent",
    "MemberKind",
    "MirrorChanges",
    "MirrorContents",
    "MirrorFacts",
    "MirrorRecord",
    "MirrorStore",
    "MirroredRoom",
    "NewRoom",
    "Outcome",
    "OutcomeStatus",
    "QueuedLetter",
    "RecordedReader",
    "Recorder",
    "Registrar",
    "Source",
    "Stamp",
    "StateKey",
    "StoredAccount",
    "StoredAccounts",
    "StoredEvent",
    "StoredMember",
    "StoredMembers",
    "welcome",
]
