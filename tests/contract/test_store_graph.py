"""The ports GraphReader and GraphStore against a real Postgres."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from aim.bridges.msgraph.memory import apply
from aim.errors import StoreError
from aim.ports.graph import (
    GraphBack,
    GraphChanges,
    GraphGroup,
    GraphLinks,
    GraphMoved,
    GraphState,
    GraphStore,
    GraphUser,
    GroupsLink,
)
from aim.store import PostgresGraph, open_graph
from aim.store.graph import open_graph_store
from aim.store.recorder import open_recorder

AT = datetime(2030, 1, 1, 12, 30, tzinfo=UTC)
LINKS = GraphLinks(
    "https://graph.example.com/users?$deltatoken=1",
    (
        GroupsLink("https://graph.example.com/groups", ("a", "b")),
        GroupsLink("https://graph.example.com/groups/2"),
    ),
)
LATER = GraphLinks("2", (GroupsLink("3"),))
ANN = GraphUser("ann", "ann@example.com", "ann", "Ann “A”", "ann@example.com", True, "Member")
BOB = GraphUser("bob", "bob@example.com", "bob", enabled=False)
STATE = GraphState(
    "Example",
    {user.id: user for user in (ANN, BOB, GraphUser("cleo"))},
    {group.id: group for group in (GraphGroup("staff", "Staff", "staff"), GraphGroup("none"))},
    {"staff": {"ann": False, "bob": False, "none": True, "gone": False}},
    LINKS,
    AT,
    revision=7,
)


@pytest.fixture(autouse=True)
async def schema(dsn: str) -> None:
    async with open_recorder(dsn):
        pass


@asynccontextmanager
async def graph_store(dsn: str, key: str = "key", *, read_only: bool = False) -> AsyncIterator[PostgresGraph]:
    async with open_graph_store(dsn, key, read_only=read_only) as store:
        assert store is not None
        yield store


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[GraphStore]:
    async with graph_store(dsn) as opened:
        yield opened


async def rows(dsn: str, table: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        count: int = await connection.fetchval(f"select count(*) from aim.graph_{table}")
        return count
    finally:
        await connection.close()


async def test_nothing_is_stored_at_first(store: GraphStore) -> None:
    assert await store.load() is None


async def test_a_state_is_read_back_whole(store: GraphStore) -> None:
    version = await store.replace(STATE, None)
    assert await store.load() == replace(STATE, version=version)


async def test_changes_are_stored_with_their_links(store: GraphStore) -> None:
    version = await store.replace(STATE, None)
    changes = GraphChanges(
        users=[ANN._replace(mail=None, enabled=None), GraphUser("dora", "dora@example.com")],
        users_gone=["bob"],
        groups=[GraphGroup("staff", "All staff", None), GraphGroup("new", "New")],
        groups_gone=["none"],
        removed={"staff": ["ann", "none"]},
        added={"new": {"ann": False, "staff": True}, "staff": {"dora": False, "gone": True}},
    )
    expected = copy.deepcopy(STATE)
    apply(expected, changes, LATER)
    following = await store.record(changes, LATER, 8, version)
    assert following > version
    assert await store.load() == replace(expected, revision=8, version=following)


async def test_a_group_that_is_gone_leaves_no_members(store: GraphStore, dsn: str) -> None:
    version = await store.replace(STATE, None)
    await store.record(GraphChanges(groups_gone=["staff"]), LATER, 8, version)
    assert await rows(dsn, "memberships") == 0


async def test_links_alone(store: GraphStore) -> None:
    version = await store.replace(STATE, None)
    following = await store.record(GraphChanges(), LATER, 7, version)
    assert await store.load() == replace(STATE, links=LATER, version=following)


async def test_a_complete_read_replaces_everything(store: GraphStore, dsn: str) -> None:
    version = await store.replace(STATE, None)
    fresh = GraphState(None, {"cleo": GraphUser("cleo")}, {}, {}, LATER, AT + timedelta(days=1), revision=9)
    version = await store.replace(fresh, version)
    assert await store.load() == replace(fresh, version=version)
    assert [await rows(dsn, table) for table in ("users", "groups", "memberships", "state")] == [1, 0, 0, 1]


async def test_what_was_read_in_another_way_is_nothing_and_goes(store: GraphStore, dsn: str) -> None:
    await store.replace(STATE, None)
    async with graph_store(dsn, "other") as other:
        assert await other.load() is None
        version = await other.replace(GraphState("Other", {}, {}, {}, LINKS, AT), None)
        assert await store.load() is None
        assert await rows(dsn, "users") == 0
        with pytest.raises(GraphMoved):
            await store.record(GraphChanges(users=[ANN]), LATER, 8, version)
    assert await rows(dsn, "users") == 0


async def test_who_knows_an_older_version_writes_nothing(store: GraphStore, dsn: str) -> None:
    first = await store.replace(STATE, None)
    async with graph_store(dsn) as other:
        with pytest.raises(GraphMoved):
            await other.replace(STATE, None)
        second = await other.record(GraphChanges(users=[GraphUser("dora")]), LATER, 8, first)
        for attempt in (
            store.record(GraphChanges(users_gone=["ann"]), LINKS, 9, first),
            store.replace(GraphState(None, {}, {}, {}, LINKS, AT), first),
            store.replace(GraphState(None, {}, {}, {}, LINKS, AT), None),
        ):
            with pytest.raises(GraphMoved):
                await attempt
        found = await store.load()
        assert found is not None
        assert (found.version, found.links, len(found.users)) == (second, LATER, 4)


async def test_what_fails_in_the_middle_is_not_stored(store: GraphStore) -> None:
    version = await store.replace(STATE, None)
    changes = GraphChanges(users=[GraphUser("dora")], added={"staff": {"a\x00": False}})
    with pytest.raises(StoreError):
        await store.record(changes, LATER, 8, version)
    assert await store.load() == replace(STATE, version=version)


async def test_who_only_looks_can_not_write(store: GraphStore, dsn: str) -> None:
    version = await store.replace(STATE, None)
    async with graph_store(dsn, read_only=True) as reader:
        assert await reader.load() == replace(STATE, version=version)
        with pytest.raises(StoreError, match="read-only"):
            await reader.record(GraphChanges(), LATER, 8, version)


async def test_without_a_database_there_is_nothing(tmp_path: Path) -> None:
    async with open_graph(None, tmp_path / "data", "key", read_only=True) as store:
        assert store is None
    assert not (tmp_path / "data").exists()


async def test_a_large_tenant(store: GraphStore) -> None:
    ids = [f"user{number}" for number in range(20_000)]
    large = GraphState(
        "Large",
        {id_: GraphUser(id_, f"{id_}@example.com") for id_ in ids},
        {f"group{number}": GraphGroup(f"group{number}") for number in range(300)},
        {
            f"group{number}": dict.fromkeys(ids[number * 50 : number * 50 + 100], False)
            for number in range(300)
        },
        LINKS,
        AT,
    )
    version = await store.replace(large, None)
    assert await store.load() == replace(large, version=version)


# Who was erased


async def erase(dsn: str, *user_ids: str) -> None:
    async with open_recorder(dsn) as recorder:
        for user_id in user_ids:
            await recorder.forget_person(user_id, f"@{user_id}:example.com")


async def whatever_names(dsn: str, name: str) -> list[str]:
    """The tables of Graph that hold it."""
    connection = await asyncpg.connect(dsn)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(connection.close)
        return [
            table
            for table in ("users", "groups", "memberships", "state", "erased")
            if await connection.fetch(
                f"select from aim.graph_{table} t where t::text like '%' || $1 || '%'", name
            )
        ]


async def test_who_was_erased_is_gone_from_what_graph_told(dsn: str, store: GraphStore) -> None:
    await store.replace(STATE, None)
    await erase(dsn, "bob", "gone", "ann", "nobody")
    found = await store.load()
    assert found is not None
    # The one is disabled there; the other was deleted, and had only a membership left; Ann has come back.
    assert set(found.users) == {"ann", "cleo"}
    assert found.members == {"staff": {"ann": False, "none": True}}


async def test_nothing_of_theirs_is_left_in_any_table(dsn: str, store: GraphStore) -> None:
    await store.replace(STATE, None)
    assert await whatever_names(dsn, "bob") == ["users", "memberships"]
    await erase(dsn, "bob")
    assert await whatever_names(dsn, "bob") == []


async def test_who_has_them_in_memory_has_to_look_again(dsn: str, store: GraphStore) -> None:
    version = await store.replace(STATE, None)
    await erase(dsn, "nobody")
    version = await store.record(GraphChanges(), LATER, 8, version)
    await erase(dsn, "bob")
    with pytest.raises(GraphMoved):
        await store.record(GraphChanges(), LATER, 9, version)


async def test_who_was_erased_is_not_stored_again_while_they_are_disabled(
    dsn: str, store: GraphStore
) -> None:
    await store.replace(STATE, None)
    await erase(dsn, "bob")
    found = await store.load()
    assert found is not None
    changes = GraphChanges(
        users=[BOB._replace(display_name="Bob"), GraphUser("dora", "dora@example.com")],
        added={"none": {"bob": False, "dora": False}},
    )
    version = await store.record(changes, LATER, 8, found.version)
    assert await whatever_names(dsn, "bob") == []
    found = await store.load()
    assert found is not None
    assert (set(found.users), found.members["none"]) == ({"ann", "cleo", "dora"}, {"dora": False})
    await store.replace(STATE, version)
    assert await whatever_names(dsn, "bob") == []
    # Of another tenant, or read in another way.
    async with graph_store(dsn, "other") as other:
        await other.replace(STATE, None)
    assert await whatever_names(dsn, "bob") == []


async def test_who_was_erased_and_is_enabled_again_is_stored_when_all_is_read_anew(
    dsn: str, store: GraphStore
) -> None:
    await store.replace(STATE, None)
    await erase(dsn, "bob")
    before = await store.load()
    assert before is not None
    back = BOB._replace(enabled=True)
    with pytest.raises(GraphBack):
        await store.record(GraphChanges(users=[back]), LATER, 8, before.version)
    assert await store.load() == before, "their groups are not known"
    whole = replace(copy.deepcopy(STATE), users={**STATE.users, "bob": back})
    version = await store.replace(whole, before.version)
    assert await store.load() == replace(whole, version=version)
    version = await store.record(GraphChanges(users=[BOB]), LATER, 9, version)
    assert await whatever_names(dsn, "bob") == ["users", "memberships"], "they were back"
