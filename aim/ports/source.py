"""The source, through our bridge. Implemented by `bridges`."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from aim.directory.entries import Entry
from aim.directory.model import Directory
from aim.directory.roster import Roster


class Source(Protocol):
    """The external system, through our bridge."""

    @property
    def type(self) -> str: ...

    async def read(self, roster: Roster) -> Directory:
        """A complete directory. Raises SourceUnavailable or SourceInvalid; never gives a part."""
        ...

    async def fingerprint(self) -> str:
        """A cheap token that changes when the source may have changed. Raises SourceUnavailable."""
        ...


@runtime_checkable
class HasEntries(Protocol):
    """A source that is a tree of entries (LDAP, LDIF)."""

    async def entries(self) -> list[Entry]:
        """All of them as they were read. Raises SourceUnavailable or SourceInvalid."""
        ...
