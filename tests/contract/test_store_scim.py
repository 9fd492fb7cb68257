"""The port ScimStore against a real Postgres: what was acknowledged is there, whoever else writes too."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from aim.errors import StoreError
from aim.ports.scim import (
    ScimAttribute,
    ScimChanged,
    ScimGrowth,
    ScimKind,
    ScimMember,
    ScimQuery,
    ScimResource,
    ScimStore,
    ScimTaken,
    ScimTooLong,
)
from aim.store import PostgresScim, forget_scim, open_scim
from aim.store.queries import QUERIES
from aim.store.scim_rows import values
from tests.contract.scim import group, names, scim_store, user, warm
from tests.servers.postgres import Postgres

NOW = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
ODD = {
    "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
    "displayName": "Ann “A” Berg\\",
    "nickName": "a\x00b\ud800",
    "urn:example:2.0:User": {"numbers": [1, 1.5, True, None], "": {"deep": [[{}]]}},
}


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresScim]:
    async with scim_store(dsn) as opened:
        yield opened


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    plain = await asyncpg.connect(dsn, server_settings={"search_path": "pg_catalog"})
    yield plain
    await plain.close()


def as_stored(resource: ScimResource, version: int = 1) -> ScimResource:
    """What a test knows of a stored resource beforehand."""
    return replace(resource, version=version, created=None, modified=None, emails=tuple(resource.emails))


def timeless(resource: ScimResource | None) -> ScimResource | None:
    return None if resource is None else replace(resource, created=None, modified=None)


# Resources


async def test_a_resource_is_read_back_whole(store: PostgresScim) -> None:
    before = await store.revision()
    ann = user(
        "Ann@Example.com",
        external_id="E-1",
        active=False,
        localpart="ann",
        emails=["A@b", "a@b"],
        document=ODD,
    )
    created = await store.create(ann)
    assert timeless(created) == as_stored(ann)
    assert created.created is not None
    assert created.created == created.modified
    assert created.created.utcoffset() == timedelta(0)
    assert await store.get(ScimKind.USER, ann.id) == created
    assert await store.revision() > before


async def test_who_is_not_there_is_none(store: PostgresScim, dsn: str) -> None:
    ann = await store.create(user("ann"))
    assert await store.get(ScimKind.GROUP, ann.id) is None
    for id_ in ("", "nobody", ann.id.upper(), f"{ann.id}\x00", "\ud800"):
        assert await store.get(ScimKind.USER, id_) is None
    async with scim_store(dsn, "other") as other:
        assert await other.get(ScimKind.USER, ann.id) is None
        assert not await other.delete(ScimKind.USER, ann.id)
        assert await other.replace(ann) is None
        assert await names(other) == []
    assert await store.get(ScimKind.USER, ann.id) == ann


async def test_text_that_postgres_can_not_hold_is_no_error(store: PostgresScim) -> None:
    odd = await store.create(user("a\x00b\ud800", external_id="\x00", localpart="\x00", emails=["\udfff@b"]))
    assert (odd.name, odd.external_id, odd.localpart, odd.emails) == (
        "a\ufffdb?",
        "\ufffd",
        "\ufffd",
        ("?@b",),
    )
    assert await store.replace(replace(odd, name="a\x00b\ud800")) == odd


@pytest.mark.parametrize(
    ("resource", "attribute"),
    [
        (user("x" * 1_501), "userName"),
        (group("é" * 751), "displayName"),
        (user("a", external_id="x" * 1_501), "externalId"),
        (user("a", emails=["b", "x" * 1_501]), "emails"),
        (user("a", document={"displayName": "x" * 1_501}), "displayName"),
    ],
)
async def test_what_no_index_takes_is_refused_by_name(
    store: PostgresScim, resource: ScimResource, attribute: str
) -> None:
    with pytest.raises(ScimTooLong, match=attribute):
        await store.create(resource)
    known = await store.create(replace(user("known"), kind=resource.kind))
    with pytest.raises(ScimTooLong, match=attribute):
        await store.replace(replace(resource, id=known.id))


async def test_the_longest_of_all_kinds_is_taken(store: PostgresScim) -> None:
    # Not to be compressed: 375 different characters of four bytes.
    longest = "".join(chr(0x20000 + n * 7) for n in range(375))
    await store.create(
        user(
            longest,
            external_id=longest,
            emails=[longest],
            document={"displayName": longest, "x": "y" * 10**6},
        )
    )
    await store.create(group(longest))
    assert await names(store) == [longest]


# Names


async def test_a_user_name_is_taken_once_whatever_its_case(store: PostgresScim, dsn: str) -> None:
    ann, bob = await store.create(user("Ann")), await store.create(user("bob"))
    with pytest.raises(ScimTaken):
        await store.create(user("aNN"))
    with pytest.raises(ScimTaken):
        await store.replace(replace(bob, name="ANN"))
    assert await store.get(ScimKind.USER, bob.id) == bob
    respelled = await store.replace(replace(ann, name="ANN"))
    assert respelled is not None
    assert (respelled.name, respelled.version) == ("ANN", 2)
    await store.delete(ScimKind.USER, ann.id)
    await store.create(user("aNN"))
    # Names of groups, and those of another client, are their own.
    await store.create(group("ann"))
    await store.create(group("Ann"))
    async with scim_store(dsn, "other") as other:
        await other.create(user("ann"))


async def test_of_many_who_want_a_name_at_once_one_gets_it(store: PostgresScim, dsn: str) -> None:
    async with scim_store(dsn) as second:
        await warm(store, second)
        tries = [
            both.create(user("Ann" if n % 2 else "ann", f"{n}-{number}"))
            for number, both in enumerate((store, second))
            for n in range(15)
        ]
        results = await asyncio.gather(*tries, return_exceptions=True)
    created = [result for result in results if isinstance(result, ScimResource)]
    assert len(created) == 1
    assert sum(isinstance(result, ScimTaken) for result in results) == 29
    assert await names(store) == [created[0].name]


# Replacing


async def test_a_replaced_resource_has_a_new_version(store: PostgresScim) -> None:
    ann = await store.create(user("ann", document={"a": 1}))
    before = await store.revision()
    wanted = replace(
        ann,
        name="anna",
        external_id="x",
        active=False,
        localpart="anna",
        emails=("a@b",),
        document={"b": [1]},
    )
    changed = await store.replace(wanted)
    assert changed is not None
    assert timeless(changed) == as_stored(wanted, version=2)
    assert changed.created == ann.created
    assert changed.modified is not None
    assert ann.modified is not None
    assert changed.modified > ann.modified
    assert await store.get(ScimKind.USER, ann.id) == changed
    assert await store.revision() > before
    assert await store.replace(user("nobody")) is None
    assert await store.replace(replace(ann, kind=ScimKind.GROUP)) is None


async def test_what_does_not_differ_is_not_written(store: PostgresScim) -> None:
    ann = await store.create(user("ann", emails=["a@b"], document={"a": 1, "b": 2}))
    one = await store.create(group("one"), [ann.id])
    before = await store.revision()
    same = replace(ann, document={"b": 2, "a": 1}, emails=["a@b"])
    assert await store.replace(same) == ann
    assert await store.replace(same, expected=1) == ann
    assert await store.replace(one, [ann.id, "nobody"]) == one
    assert await store.revision() == before
    # True is not 1, to JSON.
    changed = await store.replace(replace(ann, document={"a": True, "b": 2}))
    assert changed is not None
    assert changed.version == 2


async def test_a_version_that_is_not_the_expected_one_changes_nothing(store: PostgresScim) -> None:
    ann, one = await store.create(user("ann")), await store.create(group("one"))
    before = await store.revision()
    attempts: list[Callable[[], Awaitable[object]]] = [
        lambda: store.replace(replace(ann, name="anna"), expected=2),
        lambda: store.replace(ann, expected=2),
        lambda: store.change_members(one.id, add=[ann.id], expected=7),
        lambda: store.delete(ScimKind.USER, ann.id, expected=2),
    ]
    for attempt in attempts:
        with pytest.raises(ScimChanged):
            await attempt()
    assert await store.revision() == before
    assert await store.change_members(one.id, add=[ann.id], expected=1) is not None
    assert await store.replace(replace(ann, name="anna"), expected=1) is not None
    assert await store.delete(ScimKind.USER, ann.id, expected=2)


async def test_of_many_who_expect_a_version_one_is_right(store: PostgresScim) -> None:
    ann = await store.create(user("ann"))
    await warm(store)
    for version in range(1, 10):
        tries = [store.replace(replace(ann, name=f"{version}-{n}"), expected=version) for n in range(8)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(result, ScimChanged) for result in results) == 7
        assert await store.get(ScimKind.USER, ann.id) in results


# Members


async def members(store: PostgresScim, group_id: str) -> list[str]:
    return [member.id for member in (await store.members([group_id]))[group_id]]


async def test_members_are_told_with_their_names(store: PostgresScim) -> None:
    bob, ann = await store.create(user("bob")), await store.create(user("ann"))
    inner = await store.create(group("Inner"), [bob.id])
    outer = await store.create(group("outer"), [bob.id, inner.id, ann.id, "nobody"])
    empty = await store.create(group("empty"))
    u, g = ScimKind.USER, ScimKind.GROUP
    assert await store.members([outer.id, inner.id, empty.id, "nobody"]) == {
        # By code point, as all texts of ours.
        outer.id: (
            ScimMember(inner.id, g, "Inner"),
            ScimMember(ann.id, u, "ann"),
            ScimMember(bob.id, u, "bob"),
        ),
        inner.id: (ScimMember(bob.id, u, "bob"),),
        empty.id: (),
        "nobody": (),
    }
    assert await store.groups_of([bob.id, inner.id, outer.id]) == {
        bob.id: (ScimMember(inner.id, g, "Inner"), ScimMember(outer.id, g, "outer")),
        inner.id: (ScimMember(outer.id, g, "outer"),),
        outer.id: (),
    }
    await store.replace(replace(ann, name="Zoe"))
    assert (await store.members([outer.id]))[outer.id][1] == ScimMember(ann.id, u, "Zoe")


async def test_users_are_told_with_their_groups_where_they_are_shown(store: PostgresScim) -> None:
    ann, bob = await store.create(user("ann")), await store.create(user("bob"))
    inner = await store.create(group("Inner"), [ann.id])
    outer = await store.create(group("outer"), [ann.id, inner.id])
    both = (await store.groups_of([ann.id]))[ann.id]
    assert [one.id for one in both] == [inner.id, outer.id]

    found = await store.search(ScimQuery(kinds=list(ScimKind), sort_by=ScimAttribute.CREATED))
    shown = [
        ann,
        bob,
        await store.get(ScimKind.USER, ann.id),
        await store.replace(replace(ann, name="anna"), expected=1),
        await store.replace(replace(ann, name="anne")),
        await store.get(ScimKind.GROUP, inner.id),
    ]

    assert [one and one.groups for one in shown] == [(), (), both, both, both, None]
    assert [one.groups for one in found.resources] == [both, (), None, None]


async def test_replacing_a_group_keeps_its_members_or_makes_them_these(store: PostgresScim) -> None:
    people = [await store.create(user(f"u{n}")) for n in range(4)]
    ids = [person.id for person in people]
    one = await store.create(group("one"), ids[:3])
    renamed = await store.replace(replace(one, name="two"))
    assert renamed is not None
    assert await members(store, one.id) == ids[:3]
    for wanted in (ids[1:], [], ids[:1]):
        assert await store.replace(renamed, wanted) is not None
        assert await members(store, one.id) == wanted
    stored = await store.get(ScimKind.GROUP, one.id)
    assert stored is not None
    assert stored.version == 5


async def test_a_group_and_its_members_are_changed_as_one(store: PostgresScim) -> None:
    people = [await store.create(user(f"u{n}")) for n in range(4)]
    ids = [person.id for person in people]
    staff = await store.create(group("staff"), ids[:2])

    async def move(name: str, expected: int | None, add: list[str], remove: list[str]) -> ScimResource | None:
        return await store.replace(replace(staff, name=name), None, expected, add=add, remove=remove)

    async def here() -> set[str]:
        return {member.id for member in (await store.members([staff.id]))[staff.id]}

    changed = await move("all", 1, [ids[2], ids[1], "nobody"], [ids[0], ids[1]])
    assert changed is not None
    assert (changed.name, changed.version) == ("all", 2)
    assert await here() == {ids[1], ids[2]}
    same = await move("all", 2, ids[1:3], ids[:1])
    assert same is not None
    assert same.version == 2
    members_only = await move("all", None, [ids[3]], [])
    assert members_only is not None
    assert members_only.version == 3
    with pytest.raises(ScimChanged):
        await move("late", 2, ids[:1], ids[1:])
    with pytest.raises(ScimTooLong):
        await move("x" * 2000, 3, ids[:1], ids[1:])
    found = await store.get(ScimKind.GROUP, staff.id)
    assert found is not None
    assert (found.name, found.version) == ("all", 3)
    assert await here() == set(ids[1:])


async def test_groups_are_counted_as_far_as_it_matters(store: PostgresScim, dsn: str) -> None:
    ids = [(await store.create(user(f"u{n}"))).id for n in range(4)]
    all_, one, none = (
        (await store.create(group("all"), ids)).id,
        (await store.create(group("one"), ids[:1])).id,
        (await store.create(group("none"))).id,
    )
    asked = [none, all_, one, "nobody"]
    for at_most, sizes in ((100, (0, 4, 1, 0)), (3, (0, 3, 1, 0)), (0, (0, 0, 0, 0))):
        assert await store.sizes(asked, at_most) == dict(zip(asked, sizes, strict=True))
    async with scim_store(dsn, "other") as other:
        assert await other.sizes([all_], 100) == {all_: 0}


async def test_a_change_of_members_touches_no_other_row(
    store: PostgresScim, connection: asyncpg.Connection
) -> None:
    ids = [(await store.create(user(f"u{n:02}"))).id for n in range(30)]
    one, other = await store.create(group("one"), ids[:20]), await store.create(group("other"), ids)
    rows = "select group_id, member_id, xmin::text, ctid::text from aim.scim_memberships"
    resources = "select id, xmin::text, ctid::text from aim.scim_resources where id <> $1"
    before = {tuple(row) for row in await connection.fetch(rows)}
    others = await connection.fetch(resources, one.id)
    changed = await store.change_members(one.id, add=[ids[20], ids[0]], remove=[ids[1], ids[25]])
    assert changed is not None
    assert changed.version == 2
    after = {tuple(row) for row in await connection.fetch(rows)}
    assert {row[:2] for row in before - after} == {(one.id, ids[1])}
    assert {row[:2] for row in after - before} == {(one.id, ids[20])}
    assert await connection.fetch(resources, one.id) == others
    assert await members(store, other.id) == ids


async def test_a_change_of_members_that_changes_nothing_is_none(store: PostgresScim, dsn: str) -> None:
    ann, bob = await store.create(user("ann")), await store.create(user("bob"))
    one = await store.create(group("one"), [ann.id])
    async with scim_store(dsn, "other") as other:
        stranger = await other.create(user("stranger"))
    before = await store.revision()
    assert await store.change_members(one.id, add=[ann.id]) == one
    assert await store.change_members(one.id, remove=[bob.id, "nobody", "\x00"]) == one
    assert await store.change_members(one.id, add=["nobody", "\ud800", one.id, stranger.id]) == one
    assert await store.change_members(one.id, add=[ann.id], remove=[ann.id]) == one
    assert await store.change_members(one.id) == one
    assert await store.revision() == before
    assert await members(store, one.id) == [ann.id]
    assert await store.change_members("nobody", add=[ann.id]) is None
    assert await store.change_members(ann.id, add=[bob.id]) is None


async def test_changes_of_one_group_at_once_are_all_made(store: PostgresScim, dsn: str) -> None:
    ids = [(await store.create(user(f"u{n:02}"))).id for n in range(40)]
    one = await store.create(group("one"), ids[:20])
    async with scim_store(dsn) as second:
        await warm(store, second)
        changes = [store.change_members(one.id, remove=[id_]) for id_ in ids[:20]]
        changes += [second.change_members(one.id, add=[id_]) for id_ in ids[20:]]
        results = await asyncio.gather(*changes)
    assert await members(store, one.id) == ids[20:]
    assert sorted(result.version for result in results if result is not None) == list(range(2, 42))


# Deleting


async def test_who_is_deleted_is_in_no_group(store: PostgresScim) -> None:
    ann, bob = await store.create(user("ann")), await store.create(user("bob"))
    inner = await store.create(group("inner"), [ann.id, bob.id])
    outer = await store.create(group("outer"), [ann.id, inner.id])
    alone = await store.create(group("alone"), [bob.id])
    before = await store.revision()
    assert not await store.delete(ScimKind.GROUP, ann.id)
    assert await store.revision() == before
    assert await store.delete(ScimKind.USER, ann.id)
    assert not await store.delete(ScimKind.USER, ann.id)
    assert await store.revision() > before
    assert await members(store, inner.id) == [bob.id]
    assert await store.delete(ScimKind.GROUP, inner.id)
    assert await members(store, outer.id) == []
    assert await store.get(ScimKind.USER, bob.id) == bob
    # What they were in looks different now, also to whoever asks by version.
    stored = [await store.get(ScimKind.GROUP, one.id) for one in (outer, alone)]
    assert [one.version for one in stored if one is not None] == [3, 1]


async def test_adding_and_deleting_at_once_ends_without_an_error(store: PostgresScim, dsn: str) -> None:
    groups = [(await store.create(group(f"g{n}"))).id for n in range(6)]
    people = [(await store.create(user(f"u{n:02}"))).id for n in range(30)]
    async with scim_store(dsn) as second:
        await warm(store, second)

        async def add(number: int) -> None:
            # Groups as members of each other, too: whoever holds what first, all get through.
            wanted = [*people, groups[(number + 1) % 6]]
            await store.change_members(groups[number % 6], add=wanted)
            await second.change_members(groups[(number + 3) % 6], add=wanted[::-1], remove=groups)

        work: list[Awaitable[object]] = [add(number) for number in range(12)]
        work += [second.delete(ScimKind.USER, id_) for id_ in people[:20]]
        work += [store.delete(ScimKind.GROUP, groups[5]), second.delete(ScimKind.GROUP, groups[4])]
        await asyncio.gather(*work)
    left = await store.snapshot()
    assert {one.id for one in left.users} == set(people[20:])
    known = {one.id for one in (*left.users, *left.groups)}
    assert {id_ for ids in left.members.values() for id_ in ids} <= known


async def test_who_is_being_deleted_is_not_added(store: PostgresScim, connection: asyncpg.Connection) -> None:
    ann, bob = await store.create(user("ann")), await store.create(user("bob"))
    one = await store.create(group("one"))
    deletion = connection.transaction()
    await deletion.start()
    await connection.execute(QUERIES["scim_delete"], "corp", ann.id)
    adding = asyncio.create_task(store.change_members(one.id, add=[ann.id, bob.id]))
    await somebody_waits(connection)
    await deletion.commit()
    assert await adding is not None
    assert await members(store, one.id) == [bob.id]


async def somebody_waits(connection: asyncpg.Connection) -> None:
    """Until a session waits for a lock; `connection` may be in a transaction, which else sees one moment."""
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
    async with asyncio.timeout(30):
        while not await connection.fetchval(waiting):
            await connection.execute("select pg_stat_clear_snapshot()")
            await asyncio.sleep(0.01)


# Everything at once


async def test_a_snapshot_is_all_of_it(store: PostgresScim, dsn: str) -> None:
    bob = await store.create(user("bob", "b", document=ODD, active=False, localpart="bob", emails=["b@c"]))
    ann = await store.create(user("ann", "a", document={"displayName": 7}))
    inner = await store.create(group("inner", "i", external_id="x", document={"x": 1}), [bob.id, ann.id])
    outer = await store.create(group("outer", "o"), [inner.id])
    async with scim_store(dsn, "other") as other:
        await other.create(group("others"), [(await other.create(user("other"))).id])
    await store.set_ready(NOW)
    found = await store.snapshot()
    assert found.users == [
        replace(ann, document={}),
        replace(bob, document={"displayName": ODD["displayName"]}),
    ]
    assert found.groups == [replace(inner, document={}), outer]
    assert found.members == {inner.id: (ann.id, bob.id), outer.id: (inner.id,)}
    assert (found.revision, found.ready_since) == (await store.revision(), NOW)


async def test_it_is_told_how_full_the_store_is(store: PostgresScim, dsn: str) -> None:
    assert await store.growth() == ScimGrowth(0, 0, 0, 0, None, None)
    ann, bob = await store.create(user("ann")), await store.create(user("bob", active=False))
    one = await store.create(group("one"), [ann.id, bob.id])
    async with scim_store(dsn, "other") as other:
        await other.create(user("other"))
    full = await store.growth()
    assert full.last_write is not None
    assert one.created is not None
    assert full.last_write >= one.created
    assert full == ScimGrowth(2, 1, 1, 2, full.last_write, None)
    for since in (NOW, NOW + timedelta(days=1), None):
        before = await store.revision()
        await store.set_ready(since)
        assert await store.growth() == replace(full, ready_since=since)
        assert await store.revision() > before


async def test_a_scan_gives_the_first_ones(store: PostgresScim) -> None:
    made = [await store.create(make(f"n{n}")) for n, make in enumerate([user, group] * 3)]
    assert [one async for one in store.scan(list(ScimKind), 100)] == made
    assert [one async for one in store.scan([ScimKind.GROUP], 2)] == [made[1], made[3]]
    assert [one async for one in store.scan([], 100)] == []
    assert [one async for one in store.scan([ScimKind.USER], -1)] == []


async def test_a_hundred_thousand_users_are_read_in_seconds(
    store: PostgresScim, connection: asyncpg.Connection
) -> None:
    people = [user(f"user{n}", document={"displayName": f"User {n}"}) for n in range(100_000)]
    async with connection.transaction():
        rows = [("corp", person.kind.value, person.id, *values(person)) for person in people]
        await connection.executemany(QUERIES["scim_create"], rows)
    everybody = await store.create(group("everybody"), [person.id for person in people[:50_000]])
    begin = time.monotonic()
    found = await store.snapshot()
    assert time.monotonic() - begin < 60
    assert len(found.users) == 100_000
    assert len(found.members[everybody.id]) == 50_000


# Changes


async def test_a_change_that_is_committed_late_is_not_missed(
    store: PostgresScim, connection: asyncpg.Connection
) -> None:
    late = connection.transaction()
    await late.start()
    ann = user("ann")
    await connection.fetchrow(QUERIES["scim_create"], "corp", ann.kind.value, ann.id, *values(ann))
    await connection.execute(QUERIES["scim_changed"], "corp")
    await store.create(user("bob"))
    seen = await store.snapshot()
    assert await store.revision() == seen.revision
    await late.commit()
    assert await store.revision() > seen.revision
    assert len((await store.snapshot()).users) == 2


async def test_equal_revisions_mean_equal_contents(store: PostgresScim, dsn: str) -> None:
    writing = True
    seen: dict[int, list[ScimResource]] = {}

    async def write(to: PostgresScim, number: int) -> None:
        for n in range(15):
            before = await to.revision()
            await to.create(user(f"{number}-{n}"))
            assert await to.revision() > before

    async def read() -> None:
        last = 0
        while writing:
            found = await store.snapshot()
            assert found.revision >= last
            assert seen.setdefault(found.revision, list(found.users)) == found.users
            last = found.revision

    async with scim_store(dsn) as second:
        readers = [asyncio.create_task(read()) for _ in range(2)]
        await asyncio.gather(*(write(to, n) for n, to in enumerate([store, second] * 3)))
        writing = False
        await asyncio.gather(*readers)
    assert await store.revision() == 90


class Heard:
    """Counts prompts, and waits for the next one."""

    def __init__(self) -> None:
        self._bell = asyncio.Event()

    def ring(self) -> None:
        self._bell.set()

    async def again(self) -> None:
        async with asyncio.timeout(30):
            await self._bell.wait()
        self._bell.clear()


async def test_every_change_is_heard_whoever_made_it(
    store: PostgresScim, dsn: str, connection: asyncpg.Connection
) -> None:
    ann, one = await store.create(user("ann")), await store.create(group("one"))
    heard = Heard()
    watching = asyncio.create_task(store.watch(heard.ring))
    await heard.again()
    async with scim_store(dsn) as other:
        changes: list[Callable[[], Awaitable[object]]] = [
            lambda: other.create(user("bob")),
            lambda: other.replace(replace(ann, name="anna")),
            lambda: other.replace(replace(ann, name="anne"), expected=2),
            lambda: other.change_members(one.id, add=[ann.id]),
            lambda: other.delete(ScimKind.USER, ann.id),
            lambda: other.set_ready(NOW),
            lambda: store.set_ready(None),
        ]
        for change in changes:
            await change()
            await heard.again()
    # Who writes and leaves has told before.
    async with scim_store(dsn) as hasty:
        await hasty.create(user("eve"))
    await heard.again()
    # Its connection is cut: whatever happens until there is a new one is heard then.
    await connection.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'aim scim listener'"
    )
    await store.create(user("cid"))
    await heard.again()
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


# Opening


async def test_it_goes_on_after_its_connections_were_cut(
    store: PostgresScim, connection: asyncpg.Connection
) -> None:
    await asyncio.gather(*(store.create(user(f"u{n}")) for n in range(20)))
    await connection.fetch(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'aim scim'"
    )
    # A connection may not have noticed yet; that is told as what it is, and once for each.
    for _ in range(20):
        with suppress(StoreError):
            await store.revision()
    assert len(await names(store)) == 20


async def test_it_is_not_opened_before_there_is_a_schema(
    postgres: Postgres, dsn: str, tmp_path: Path
) -> None:
    for url, directory in ((dsn, postgres.data_dir), (None, tmp_path)):
        with pytest.raises(StoreError, match="nothing was pushed") as caught:
            async with open_scim(url, directory, "corp"):
                pass
        assert "aim run" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


async def test_who_opens_it_to_read_can_not_write(postgres: Postgres, dsn: str, store: PostgresScim) -> None:
    ann = await store.create(user("ann"))
    async with open_scim(dsn, postgres.data_dir, "corp", read_only=True) as reader:
        assert await reader.snapshot() == await store.snapshot()
        with pytest.raises(StoreError):
            await reader.delete(ScimKind.USER, ann.id)
        with pytest.raises(StoreError):
            await reader.create(user("bob"))
    async with open_scim(dsn, postgres.data_dir, "corp") as writer:
        await writer.create(user("bob"))
    assert await names(store) == ["ann", "bob"]


# Forgetting


async def test_who_was_erased_leaves_no_trace(store: PostgresScim, connection: asyncpg.Connection) -> None:
    manager = {"manager": {"value": "annas-id", "displayName": "Anna B"}, "bare": "annas-id", "kept": 1}
    anna = await store.create(user("annabel", "annas-id", active=False, emails=["annabel@b"], document=ODD))
    bob = await store.create(user("bob", document={"urn:x": manager, "list": [{"value": "annas-id"}, 2]}))
    cid = await store.create(user("cid", document={"manager": {"value": "annas-id-2"}}))
    one = await store.create(group("one"), [anna.id, bob.id])
    before = await store.revision()
    async with connection.transaction():
        await forget_scim(connection, anna.id)
    assert await store.get(ScimKind.USER, anna.id) is None
    assert await members(store, one.id) == [bob.id]
    changed = await store.get(ScimKind.USER, bob.id)
    assert changed is not None
    assert (changed.document, changed.version) == ({"urn:x": {"kept": 1}, "list": [2]}, 2)
    assert await store.get(ScimKind.USER, cid.id) == cid
    assert await store.revision() > before
    rows = await connection.fetch("select to_jsonb(r) as row from aim.scim_resources r")
    text = json.dumps([json.loads(row["row"]) for row in rows]).replace("annas-id-2", "")
    assert "anna" not in text.lower()


async def test_who_is_back_is_not_forgotten(store: PostgresScim, connection: asyncpg.Connection) -> None:
    ann = await store.create(user("ann"))
    one = await store.create(group(ann.id), [ann.id])
    before = await store.revision()
    async with connection.transaction():
        for id_ in (ann.id, one.id, "nobody"):
            await forget_scim(connection, id_)
    assert await store.get(ScimKind.USER, ann.id) == ann
    assert await members(store, one.id) == [ann.id]
    assert await store.revision() == before


async def test_forgetting_waits_for_a_group_before_it_holds_a_member(
    store: PostgresScim, connection: asyncpg.Connection, dsn: str
) -> None:
    ann = await store.create(user("ann", active=False))
    one = await store.create(group("one"), [ann.id])
    forgetter = await asyncpg.connect(dsn, server_settings={"search_path": "pg_catalog"})

    async def forget() -> None:
        async with forgetter.transaction():
            await forget_scim(forgetter, ann.id)

    # As a request that adds somebody to the group does it: first the group, then who is to be in it.
    async with connection.transaction():
        await connection.fetchrow(QUERIES["scim_lock"], "corp", one.kind.value, one.id)
        forgetting = asyncio.create_task(forget())
        await somebody_waits(connection)
        holding = "select id from aim.scim_resources where id = $1 for key share nowait"
        assert await connection.fetchval(holding, ann.id) == ann.id
    await forgetting
    await forgetter.close()
    assert await store.get(ScimKind.USER, ann.id) is None
    assert await members(store, one.id) == []


def test_the_store_offers_its_port_and_what_only_our_wiring_needs() -> None:
    def methods(of: type) -> set[str]:
        return {name for name in dir(of) if not name.startswith("_")}

    assert methods(PostgresScim) == methods(ScimStore) | {"watch", "mapping", "settle_localparts"}
