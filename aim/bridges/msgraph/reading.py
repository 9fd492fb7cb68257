"""Asks Graph for everything, or for what has changed since, and sees to it that the answer is whole.

Between `polling` and the way there. The first round of a delta query lists all objects, and of groups all
direct members, in pages of 999: so everything is read with no request for each group, and the link at its end
leads to whatever changes from then on. `$expand=members` stops at twenty members, and is never used.

- With `filter` users are listed by it, as a delta query can't filter: their changes are only a sign that the
  list is to be read again.
- With `groups` the groups are asked for by id, at most fifty in a query, and then the groups in them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from aim.bridges.msgraph.graph import Graph, Item, ResyncNeeded
from aim.bridges.msgraph.items import (
    GROUP_PROPERTIES,
    GROUP_SELECT,
    USER_PROPERTIES,
    id_of,
    malformed,
    properties_in,
    user_select,
)
from aim.bridges.msgraph.memory import Draft
from aim.bridges.msgraph.settings import GraphSettings
from aim.errors import SourceInvalid
from aim.ports.graph import GraphLinks, GraphState, GroupsLink

_IDS_IN_A_FILTER = 50
"""Objects that a delta query can be restricted to (https://learn.microsoft.com/graph/api/group-delta)."""
_LISTED_AGAIN = 2
"""How often filtered users are listed after a change: the index that filters is behind by some seconds."""

_FORMAT = 1
"""Another one for a state that means something else."""

Take = Callable[[Iterable[Item]], None]


def key_of(settings: GraphSettings) -> str:
    """What a stored state depends on: the tenant, and which of it is read. Of another key it is of no use."""
    parts = (
        _FORMAT,
        settings.base_url,
        settings.version,
        settings.tenant_id,
        settings.client_id,
        settings.filter,
        settings.localpart,
        settings.transitive if settings.groups else None,
        sorted(settings.groups),
        USER_PROPERTIES,
        GROUP_PROPERTIES,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Reading:
    """Reads one tenant. All methods raise SourceUnavailable and SourceInvalid."""

    def __init__(self, graph: Graph, settings: GraphSettings, now: Callable[[], datetime]) -> None:
        """`now` gives the time in UTC."""
        self._graph = graph
        self._settings = settings
        self._now = now
        self._roots = tuple(dict.fromkeys(id_.lower() for id_ in settings.groups))
        self._select = user_select(settings.localpart)
        self._listings_due = 0

    async def everything(self) -> GraphState:
        """All that there is. Nothing is given unless all of it has been read."""
        read_at, draft = self._now(), Draft(self._settings.localpart)
        async with _together() as tasks:
            name = tasks.create_task(organisation_of(self._graph))
            users = tasks.create_task(self._all_users(draft))
            groups = tasks.create_task(self._all_groups(draft))
        links = GraphLinks(users.result(), groups.result())
        # Of a large tenant it takes a second, during which the others go on.
        return await asyncio.to_thread(draft.whole, name.result(), links, read_at)

    async def changes(self, state: GraphState) -> tuple[Draft, GraphLinks]:
        """What changed since `state`, and where to go on. Raises ResyncNeeded if Graph can't tell."""
        draft = Draft(self._settings.localpart, state)
        async with _together() as tasks:
            users = tasks.create_task(self._changed_users(draft, state.links.users))
            groups = [
                tasks.create_task(self._follow(link.link, None, draft.groups)) for link in state.links.groups
            ]
        links = [
            GroupsLink(task.result(), link.ids) for task, link in zip(groups, state.links.groups, strict=True)
        ]
        if self._roots:
            links += await self._chosen_groups(draft, {id_ for link in links for id_ in link.ids})
        return draft, GraphLinks(users.result(), tuple(links))

    async def touched(self, links: GraphLinks) -> set[str]:
        """Ids of users and groups that something happened to since. Raises ResyncNeeded, too."""
        found: set[str] = set()

        def take(page: Iterable[Item]) -> None:
            found.update(id_of(item) for item in page)

        async with _together() as tasks:
            for link in (links.users, *(groups.link for groups in links.groups)):
                tasks.create_task(self._follow(link, None, take))
        return found

    async def _all_users(self, draft: Draft) -> str:
        if self._settings.filter is None:
            return await self._follow("/users/delta", {"$select": self._select}, draft.users)
        # What is not selected is no change. Before the list: what changes while that is read is a sign later.
        select = dict.fromkeys([*self._select.split(","), *properties_in(self._settings.filter)])
        latest = {"$select": ",".join(select), "$deltatoken": "latest"}
        link = await self._follow("/users/delta", latest, lambda _: None)
        draft.all_users(await self._listed_users())
        return link

    async def _listed_users(self) -> list[Item]:
        """All users that the filter lets through."""
        assert self._settings.filter is not None
        query = {
            "$select": self._select,
            "$filter": self._settings.filter,
            # With this the transport asks for what Graph calls advanced queries, which know all operators.
            "$count": "true",
            "$top": str(self._settings.page_size),
        }
        return [item async for page in self._graph.pages("/users", query) for item in page.items]

    async def _all_groups(self, draft: Draft) -> tuple[GroupsLink, ...]:
        if self._roots:
            return tuple(await self._chosen_groups(draft, set()))
        return (GroupsLink(await self._follow("/groups/delta", {"$select": GROUP_SELECT}, draft.groups)),)

    async def _chosen_groups(self, draft: Draft, asked: Collection[str]) -> list[GroupsLink]:
        """Reads the configured groups, and those in them, that were not `asked` for yet."""
        links: list[GroupsLink] = []
        known = set(asked)
        while wanted := self._wanted_groups(draft) - known:
            async with _together() as tasks:
                chunks = [
                    (ids, tasks.create_task(self._groups_by_id(ids, draft)))
                    for ids in _chunks(sorted(wanted), _IDS_IN_A_FILTER)
                ]
            links += [GroupsLink(task.result(), tuple(ids)) for ids, task in chunks]
            known |= wanted
        return links

    def _wanted_groups(self, draft: Draft) -> set[str]:
        nested = draft.nested(self._roots) if self._settings.transitive else set()
        return nested.union(self._roots)

    async def _groups_by_id(self, ids: Sequence[str], draft: Draft) -> str:
        query = {"$select": GROUP_SELECT, "$filter": " or ".join(f"id eq '{id_}'" for id_ in ids)}
        return await self._follow("/groups/delta", query, draft.groups)

    async def _changed_users(self, draft: Draft, link: str) -> str:
        if self._settings.filter is None:
            return await self._follow(link, None, draft.users)
        seen: list[Item] = []
        following = await self._follow(link, None, seen.extend)
        if seen:
            self._listings_due = _LISTED_AGAIN
        if self._listings_due:
            draft.all_users(await self._listed_users())
            self._listings_due -= 1
        return following

    async def _follow(self, path: str, query: Mapping[str, str] | None, take: Take) -> str:
        """Gives each page of a delta query to `take`; gives the link at its end."""
        link: str | None = None
        async for page in self._graph.pages(path, query, page_size=self._settings.page_size):
            take(page.items)
            link = page.delta_link
        if link is None:
            raise malformed("a list of changes that ends without a deltaLink")
        return link


async def organisation_of(graph: Graph) -> str | None:
    """What the organisation is called; None if that is not told. Raises SourceUnavailable."""
    try:
        answer = await graph.get("/organization", {"$select": "displayName"})
    except SourceInvalid:
        # The right to read people does not hold everywhere the right to read this.
        return None
    listed = answer.get("value")
    first = listed[0] if isinstance(listed, Sequence) and listed else None
    name = first.get("displayName") if isinstance(first, Mapping) else None
    return name if isinstance(name, str) and name else None


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks side by side. If one fails the others are ended, and its error is raised; ResyncNeeded first."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        errors = group.exceptions
        raise next((error for error in errors if isinstance(error, ResyncNeeded)), errors[0]) from None


def _chunks(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
