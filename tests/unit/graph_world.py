"""What the tests of the reading of Graph share: the way to the stand-in without HTTP, a store in memory, and
Directories that can be compared.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

from aim.bridges.msgraph.directory import groups_of, key_of, people_of
from aim.bridges.msgraph.graph import Item, Page, ResyncNeeded
from aim.bridges.msgraph.memory import apply
from aim.bridges.msgraph.polling import Poller
from aim.bridges.msgraph.reading import Reading
from aim.bridges.msgraph.settings import ClientSecret, GraphSettings
from aim.directory.listed import Frame, assemble, enrol, settle
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import SourceInvalid, StoreError
from aim.ports.graph import GraphBack, GraphChanges, GraphLinks, GraphMoved, GraphState, GraphStore
from tests.servers.graph_model import GraphModel

SETTINGS = GraphSettings(tenant_id="tenant", client_id="app", credential=ClientSecret(value="secret"))


class ModelGraph:
    """`Graph` over the stand-in's model: what `transport` makes of it when nothing goes wrong on the way."""

    def __init__(self, model: GraphModel) -> None:
        self.model = model
        self.requests: list[str] = []
        self.before: Callable[[str], None] = lambda _: None
        """Called with each request; may raise."""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Item:
        return self._ask(_target(path, query))

    async def pages(
        self, path: str, query: Mapping[str, str] | None = None, *, page_size: int | None = None
    ) -> AsyncIterator[Page]:
        target: str | None = _target(path, query)
        headers = {"Prefer": f"odata.maxpagesize={page_size}"} if page_size else {}
        if query and "$count" in query:
            headers["ConsistencyLevel"] = "eventual"
        while target is not None:
            content = self._ask(target, headers)
            yield Page(content["value"], content.get("@odata.deltaLink"))
            target = content.get("@odata.nextLink")
            # So that what is read side by side really alternates.
            await asyncio.sleep(0)

    async def batch(self, paths: Sequence[str]) -> Sequence[Item]:
        return [await self.get(path) for path in paths]

    def _ask(self, target: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        self.requests.append(target)
        self.before(target)
        answer = self.model.answer("GET", target, headers)
        if answer.status == 410:
            raise ResyncNeeded("gone")
        if answer.status != 200:
            raise SourceInvalid(f"{answer.status} {answer.content}")
        content: dict[str, Any] = answer.content
        return content


def _target(path: str, query: Mapping[str, str] | None) -> str:
    if path.startswith("http"):
        return path
    return f"/v1.0{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")


class MemoryGraph:
    """GraphStore in memory. What it gave and got is its own: nobody can change it afterwards."""

    def __init__(self) -> None:
        self.stored: GraphState | None = None
        self.records = 0
        self.erased: set[str] = set()
        self.fails: Callable[[], bool] = lambda: False
        """Whether the connection is lost: right before a commit, or right after it, by turns."""
        self._is_late = False

    async def load(self) -> GraphState | None:
        return copy.deepcopy(self.stored)

    async def replace(self, state: GraphState, known: int | None) -> int:
        found = self.stored.version if self.stored else None
        if found != known:
            raise GraphMoved
        self.erased -= {user.id for user in state.users.values() if user.enabled is not False}
        return self._commit(replace(without(state, self.erased), version=(known or 0) + 1))

    async def record(self, changes: GraphChanges, links: GraphLinks, revision: int, known: int) -> int:
        if self.stored is None or self.stored.version != known:
            raise GraphMoved
        if any(user.id in self.erased and user.enabled is not False for user in changes.users):
            raise GraphBack
        state = copy.deepcopy(self.stored)
        there = replace(
            changes,
            users_gone=[id_ for id_ in changes.users_gone if id_ in state.users],
            removed={
                group: [id_ for id_ in gone if id_ in state.members.get(group, {})]
                for group, gone in changes.removed.items()
                if group in state.members
            },
        )
        apply(state, copy.deepcopy(there), links)
        return self._commit(replace(without(state, self.erased), revision=revision, version=known + 1))

    def erase(self, user_id: str) -> None:
        """As when somebody's account was erased."""
        state = self.stored
        if state is None or ((user := state.users.get(user_id)) and user.enabled is not False):
            return
        self.erased.add(user_id)
        self.stored = replace(without(state, self.erased), version=state.version + 1)

    def _commit(self, state: GraphState) -> int:
        if self.fails():
            self._is_late = not self._is_late
            if self._is_late:
                self.stored = state
            raise StoreError("the connection was lost")
        self.stored = state
        self.records += 1
        return state.version


def without(state: GraphState, erased: Collection[str]) -> GraphState:
    """A copy in which none of these is, but for who is enabled."""
    left = copy.deepcopy(state)
    gone = {id_ for id_ in erased if (user := state.users.get(id_)) is None or user.enabled is False}
    left.users = {id_: user for id_, user in left.users.items() if id_ not in gone}
    members = {
        group: {id_: is_group for id_, is_group in inside.items() if id_ not in gone}
        for group, inside in left.members.items()
    }
    left.members = {group: inside for group, inside in members.items() if inside}
    return left


class Tenancy:
    """One tenant and whoever follows it."""

    def __init__(self, seed: int = 0, settings: GraphSettings = SETTINGS) -> None:
        self.model = GraphModel(seed)
        self.tenant = self.model.tenant
        self.clock = self.model.clock
        self.graph = ModelGraph(self.model)
        self.store = MemoryGraph()
        self.settings = settings
        self.warnings: list[str] = []

    def poller(self, store: GraphStore | None = None) -> Poller:
        """As a process that starts now; it records in `store`, or reads ours and records nothing."""
        reading = Reading(self.graph, self.settings, self.clock.now)
        return Poller(
            reading,
            self.settings.full_read_interval,
            store or self.store,
            store,
            self.clock.now,
            self.warnings.append,
        )

    async def whole(self) -> GraphState:
        """What a complete read gives now."""
        return await Reading(self.graph, self.settings, self.clock.now).everything()

    def directory(self, state: GraphState) -> Directory:
        return directory_of(state, self.settings)

    def later(self, **by: float) -> None:
        self.clock.advance(timedelta(**by))


def directory_of(state: GraphState, settings: GraphSettings = SETTINGS) -> Directory:
    roster, groups = Roster(), groups_of(state, settings)
    told = settle(people_of(state, settings, groups))
    frame = Frame(source="ms-graph-ad", name=state.name or settings.tenant_id, key_of=key_of)
    return assemble(told, enrol(told, roster), groups, roster, frame, transitive=settings.transitive)


def shown(directory: Directory) -> object:
    """All of a Directory, whatever numbers its people have."""
    names = directory.roster.localparts
    groups = [(group.id, group.name, names(group.members)) for group in directory.groups]
    return (
        directory.name,
        directory.users,
        groups,
        names(directory.everyone),
        names(directory.contested),
        directory.unresolved,
        directory.problems,
        directory.keys,
    )


def members(directory: Directory, external_id: str) -> list[list[str]]:
    """Localparts of those in each group of that name."""
    return [directory.roster.localparts(group.members) for group in directory.find(external_id)]
