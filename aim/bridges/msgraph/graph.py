"""What the reading of Microsoft Graph asks of the way there.

Implemented by `transport`; used by `reading`, `polling` and `describe`. Everything that is wrong on the way
is tried again there, or is an error here: never a smaller answer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aim.errors import SourceInvalid

Item = Mapping[str, object]
"""One JSON object, as Graph gives it."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a collection."""

    items: Sequence[Item]
    delta_link: str | None = None
    """Where changes after this are asked for: on the last page of a delta query, and on no other."""


class ResyncNeeded(SourceInvalid):
    """Graph can't tell what changed since (410 Gone, syncStateNotFound, resyncRequired): all has to be read
    again."""


class Graph(Protocol):
    """Microsoft Graph, read only. All methods raise SourceUnavailable and SourceInvalid."""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Item:
        """One JSON object. `path` is below the version, as `/organization`."""
        ...

    def pages(
        self, path: str, query: Mapping[str, str] | None = None, *, page_size: int | None = None
    ) -> AsyncIterator[Page]:
        """A collection to its end. `path` may also be a delta link, whole. `page_size` asks for as many
        objects on each page (Prefer: odata.maxpagesize). Raises ResyncNeeded, too."""
        ...

    async def batch(self, paths: Sequence[str]) -> Sequence[Item]:
        """The answers to GET of each, with their query, in their order; 20 to a request."""
        ...
