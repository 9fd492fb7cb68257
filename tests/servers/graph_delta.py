"""Delta queries of the stand-in of Microsoft Graph: rounds, their pages, and the tokens that lead on.

A round is what one walk from a first request, or from a delta link, to the next delta link shows. Its entries
are fixed when it begins; what they say is read when their page is asked for, as Graph does it. Tokens are
opaque, and stay good after use: a page that was lost can be asked for again.

Sources: "Use delta query to track changes in Microsoft Graph data", "Get incremental changes for users" and
"… for groups", "user: delta", "group: delta".
"""

from __future__ import annotations

import random
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tests.servers.graph_odata import DEFAULTS, Refusal, bad_request
from tests.servers.graph_tenant import GROUPS, Clock, Event, Properties, Tenant, What

Json = dict[str, Any]

MOST_ON_PAGE = 999
_LIFE = timedelta(days=7)


@dataclass(slots=True)
class Habits:
    """What Graph is free to do, and this one does. All of it ends in the same state for a client that follows
    the documentation."""

    page: int = 100
    """Objects on a page where the client asks for no number."""
    members: int = 2000
    """Members on a page, over all its groups: a larger group comes in parts."""
    items: str = "changed"
    """What an item of a changed object carries: only the `changed` properties, `all` that are selected and
    set, or each of the unchanged ones by chance: `mixed`."""
    history: bool = False
    """Whether each change is an item of its own, oldest first, rather than all of an object summed up."""
    repeats: float = 0.0
    """The chance that an item comes again, on the same page or a later one."""
    replays: int = 0
    """How many changes before a delta link come again after it."""
    lag: int = 0
    """How many of the latest changes are not shown yet."""
    empty_pages: float = 0.0
    """The chance that a round's first page holds nothing, but leads on."""
    shuffle: bool = False
    """Whether objects come in any order. Not with `history`."""
    shows_deleted: bool = True
    """Whether the first round tells of objects that were deleted and can be restored."""

    @classmethod
    def wild(cls, chance: random.Random) -> Habits:
        """Anything that is allowed, in small pages."""
        return cls(
            page=chance.randint(1, 7),
            members=chance.randint(1, 5),
            items=chance.choice(["changed", "all", "mixed"]),
            history=chance.random() < 0.4,
            repeats=chance.choice([0.0, 0.3]),
            replays=chance.choice([0, 0, 3, 20]),
            lag=chance.choice([0, 0, 2]),
            empty_pages=chance.choice([0.0, 0.2]),
            shuffle=chance.random() < 0.5,
            shows_deleted=chance.random() < 0.5,
        )


@dataclass(frozen=True, slots=True)
class Query:
    """What a first request asked for; tokens keep it."""

    collection: str
    select: tuple[str, ...] | None = None
    """Names of properties; None for the default ones."""
    members: bool = False
    only: frozenset[str] | None = None
    """Ids; None for all."""

    @property
    def names(self) -> Sequence[str]:
        return DEFAULTS[self.collection] if self.select is None else self.select


@dataclass(frozen=True, slots=True)
class _Entry:
    """One object in a round."""

    id: str
    gone: str = ""
    """The reason, if it is."""
    whole: bool = True
    """Whether all that is set is shown, or only `names`."""
    names: frozenset[str] = frozenset()
    """Properties that changed: shown even if they were taken away."""
    values: Properties | None = None
    """What it says, if that is not what holds when the page is asked for."""
    joined: Sequence[str] = ()
    left: Sequence[str] = ()


@dataclass(slots=True)
class _Round:
    query: Query
    entries: Sequence[_Entry]
    until: int
    """The number of the last change that it covers."""
    tokens: dict[tuple[int, int], str] = field(default_factory=dict)
    """By where the page begins: the entry, and how many of its members were shown before."""
    closing: str = ""
    """The token of its delta link."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """What a delta link's token stands for."""

    query: Query
    number: int
    issued: datetime


@dataclass(frozen=True, slots=True)
class DeltaPage:
    items: Sequence[Json]
    skip_token: str = ""
    delta_token: str = ""
    """One of the two."""


class Deltas:
    """The delta queries of one tenant."""

    def __init__(self, tenant: Tenant, clock: Clock, seed: int = 0) -> None:
        self.habits = Habits()
        self.gone_code = "syncStateNotFound"
        """What an answer 410 is called: `resyncRequired` is another of its names."""
        self._tenant = tenant
        self._clock = clock
        self._random = random.Random(seed)
        self._skips: dict[str, tuple[_Round, int, int]] = {}
        self._marks: dict[str, _Mark] = {}
        self._expired: dict[str, str] = {}
        """Tokens that were good once, and their collections."""

    def expire(self, collection: str | None = None) -> None:
        """No token that was given is good any more: 410."""
        for token, (walk, _, _) in list(self._skips.items()):
            if collection in {None, walk.query.collection}:
                self._expired[token] = walk.query.collection
                del self._skips[token]
        for token, mark in list(self._marks.items()):
            if collection in {None, mark.query.collection}:
                self._expired[token] = mark.query.collection
                del self._marks[token]

    def first(self, query: Query, size: int | None) -> DeltaPage:
        """The first page of a first round: all that is there."""
        number = self._horizon()
        return self._begin(self._round(query, list(self._all(query)), number), size, minimal=False)

    def latest(self, query: Query) -> DeltaPage:
        """No items, but a delta link from now on."""
        return DeltaPage((), delta_token=self._mark(query, self._horizon()))

    def after(self, collection: str, delta_token: str, size: int | None, *, minimal: bool) -> DeltaPage:
        """The first page of what changed since. Raises Refusal."""
        mark = self._marks.get(delta_token)
        if mark and self._clock.now() - mark.issued > _LIFE:
            self._expired[delta_token] = mark.query.collection
            mark = None
        if mark is None or mark.query.collection != collection:
            raise self._lost(delta_token, collection)
        until = max(self._horizon(), mark.number)
        entries = self._changes(mark.query, max(0, mark.number - self.habits.replays), until)
        return self._begin(self._round(mark.query, entries, until), size, minimal=minimal)

    def next(self, collection: str, skip_token: str, size: int | None, *, minimal: bool) -> DeltaPage:
        """A further page. Raises Refusal."""
        found = self._skips.get(skip_token)
        if found is None or found[0].query.collection != collection:
            raise self._lost(skip_token, collection)
        return self._page(*found, size, minimal=minimal)

    def pages(self, query: Query, size: int) -> int:
        """How many pages a first round has at least."""
        walk = _Round(query, list(self._all(query)), 0)
        count, place = 1, (0, 0)
        while True:
            _, following = self._pack(walk, *place, size)
            if following is None:
                return count
            count, place = count + 1, following

    # Tokens

    def _lost(self, token: str, collection: str) -> Refusal:
        if self._expired.get(token) != collection:
            return bad_request("Badly formed token.", "Directory_BadToken")
        # The address of the initial query, with a token that is empty; the caller puts the host before it.
        return Refusal(
            410,
            self.gone_code,
            "The sync state is no longer known; a full synchronization is required.",
            {"Location": f"/{collection}/delta?$deltatoken="},
        )

    def _token(self) -> str:
        return urlsafe_b64encode(self._random.randbytes(96)).decode()

    def _mark(self, query: Query, number: int) -> str:
        token = self._token()
        self._marks[token] = _Mark(query, number, self._clock.now())
        return token

    def _horizon(self) -> int:
        return max(0, self._tenant.number - self.habits.lag)

    # Rounds

    def _round(self, query: Query, entries: list[_Entry], until: int) -> _Round:
        return _Round(query, self._disturbed(entries), until)

    def _disturbed(self, entries: list[_Entry]) -> list[_Entry]:
        habits = self.habits
        if habits.shuffle and not habits.history:
            self._random.shuffle(entries)
        if habits.repeats:
            for place in range(len(entries) - 1, -1, -1):
                if self._random.random() < habits.repeats:
                    # Of a history, only what is said again at once doesn't undo what comes between.
                    last = place + 1 if habits.history else self._random.randint(place + 1, len(entries))
                    entries.insert(last, entries[place])
        return entries

    def _all(self, query: Query) -> Iterator[_Entry]:
        tenant = self._tenant
        for thing in tenant.all(query.collection):
            if query.only is None or thing.id in query.only:
                yield _Entry(thing.id, joined=tuple(thing.members) if query.members else ())
        if self.habits.shows_deleted:
            for thing in tenant.deleted(query.collection):
                if query.only is None or thing.id in query.only:
                    yield _Entry(thing.id, gone="changed")

    def _changes(self, query: Query, since: int, until: int) -> list[_Entry]:
        events = self._tenant.since(query.collection, since, until)
        if query.only is not None:
            events = [event for event in events if event.id in query.only]
        if self.habits.history:
            entries = [_told(query, event) for event in events if not event.hidden]
        else:
            by_id: dict[str, list[Event]] = {}
            for event in events:
                by_id.setdefault(event.id, []).append(event)
            entries = [_summed_up(query, of_one) for of_one in by_id.values()]
        return [entry for entry in entries if entry is not None]

    # Pages

    def _begin(self, walk: _Round, size: int | None, *, minimal: bool) -> DeltaPage:
        if self._random.random() < self.habits.empty_pages:
            return DeltaPage((), skip_token=self._skip(walk, (0, 0)))
        return self._page(walk, 0, 0, size, minimal=minimal)

    def _page(self, walk: _Round, index: int, shown: int, size: int | None, *, minimal: bool) -> DeltaPage:
        entries, following = self._pack(walk, index, shown, min(size or self.habits.page, MOST_ON_PAGE))
        items = [self._item(walk.query, entry, minimal) for entry in entries]
        if following is not None:
            return DeltaPage(items, skip_token=self._skip(walk, following))
        if not walk.closing:
            walk.closing = self._mark(walk.query, walk.until)
        return DeltaPage(items, delta_token=walk.closing)

    def _skip(self, walk: _Round, place: tuple[int, int]) -> str:
        token = walk.tokens.get(place)
        if token is None:
            token = walk.tokens[place] = self._token()
            self._skips[token] = (walk, *place)
        return token

    def _pack(
        self, walk: _Round, index: int, shown: int, size: int
    ) -> tuple[list[_Entry], tuple[int, int] | None]:
        """The entries of the page that begins there, and where the next one begins; None after the last."""
        packed: list[_Entry] = []
        room = self.habits.members
        while index < len(walk.entries) and len(packed) < size:
            entry = walk.entries[index]
            total = len(entry.joined) + len(entry.left)
            if total > shown and room == 0:
                break
            taken = min(total - shown, room)
            packed.append(_part(entry, shown, taken) if total > taken else entry)
            room -= taken
            shown += taken
            if shown < total:
                break
            index, shown = index + 1, 0
        return packed, (index, shown) if index < len(walk.entries) else None

    def _item(self, query: Query, entry: _Entry, minimal: bool) -> Json:
        thing = self._tenant.in_collection(entry.id, query.collection)
        if entry.gone or (thing is None and entry.values is None):
            return {"id": entry.id, "@removed": {"reason": entry.gone or "changed"}}
        now: Properties = {} if thing is None else thing.properties
        said = now if entry.values is None else {**now, **entry.values}
        item: Json = {}
        for name in query.names:
            if name in entry.names:
                item[name] = said.get(name)
            elif said.get(name) is not None and (entry.whole or self._carries_unchanged(minimal)):
                item[name] = said[name]
        item["id"] = entry.id
        members = [self._member(each) for each in entry.joined]
        members += [{**self._member(each), "@removed": {"reason": "deleted"}} for each in entry.left]
        if members:
            item["members@delta"] = members
        return item

    def _carries_unchanged(self, minimal: bool) -> bool:
        items = "changed" if minimal else self.habits.items
        return items == "all" or (items == "mixed" and self._random.random() < 0.5)

    def _member(self, member_id: str) -> Json:
        return {"@odata.type": f"#microsoft.graph.{self._tenant.kinds[member_id]}", "id": member_id}


def _part(entry: _Entry, shown: int, taken: int) -> _Entry:
    """An entry with some of its members: `taken` after the first `shown`."""
    end, here = shown + taken, len(entry.joined)
    return replace(
        entry, joined=entry.joined[shown:end], left=entry.left[max(0, shown - here) : max(0, end - here)]
    )


def _told(query: Query, event: Event) -> _Entry | None:
    """One change, as it was; None if it isn't about what is tracked."""
    if event.what is What.GONE:
        return _Entry(event.id, gone=event.reason)
    joined, left = (event.joined, event.left) if query.members else ((), ())
    if event.what is What.APPEARED:
        return _Entry(event.id, values=event.values, joined=joined)
    names = frozenset(event.values) & frozenset(query.names)
    if not names and not joined and not left:
        return None
    return _Entry(event.id, whole=False, names=names, values=event.values, joined=joined, left=left)


def _summed_up(query: Query, events: Sequence[Event]) -> _Entry | None:
    """All that happened to one object, as it ended; None if it isn't about what is tracked."""
    last = [event for event in events if not event.hidden]
    if last and last[-1].what is What.GONE:
        return _Entry(events[0].id, gone=last[-1].reason)
    names: set[str] = set()
    came: dict[str, bool] = {}
    for event in events:
        if event.what is What.CHANGED:
            names |= set(event.values)
        came.update(dict.fromkeys(event.joined, True))
        came.update(dict.fromkeys(event.left, False))
    tracked = frozenset(names) & frozenset(query.names)
    members = came if query.members and query.collection == GROUPS else {}
    whole = any(event.what is What.APPEARED for event in events)
    if not whole and not tracked and not members:
        return None
    return _Entry(
        events[0].id,
        whole=whole,
        names=tracked,
        joined=tuple(each for each, is_in in members.items() if is_in),
        left=tuple(each for each, is_in in members.items() if not is_in),
    )
