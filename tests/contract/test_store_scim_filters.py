"""Searches over SCIM resources in a real Postgres: what RFC 7644 says is found, page by page, by an index."""

from __future__ import annotations

import functools
import itertools
import operator
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from unicodedata import normalize

import asyncpg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from aim.ports.scim import (
    ScimAll,
    ScimAny,
    ScimAttribute,
    ScimCompare,
    ScimFilter,
    ScimInvalidCursor,
    ScimKind,
    ScimNot,
    ScimOperator,
    ScimPage,
    ScimPresent,
    ScimQuery,
    ScimResource,
    ScimTooComplex,
)
from aim.store import PostgresScim
from aim.store.pool import Pool, pooled
from aim.store.queries import QUERIES
from aim.store.scim_pages import Search
from aim.store.scim_rows import values
from tests.contract.scim import group, scim_store, user
from tests.servers.postgres import Postgres

BOTH = list(ScimKind)
CHARACTERS = [
    "a",
    "A",
    "b",
    "%",
    "_",
    "\\",
    "'",
    '"',
    "{",
    "$1",
    ",",
    " ",
    "é",
    "e\u0301",
    "É",
    "ß",
    "ẞ",
    "Σ",
    "ς",
]
CHARACTERS += ["İ", "\ud7ff", "\ue000", "😀", "\U0010ffff"]
texts = st.lists(st.sampled_from(CHARACTERS), max_size=4).map("".join)
hostile = texts | st.sampled_from(["\x00", "a\x00", "\ud800", "a\udfffb"])
EARLY = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
LATE = datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))

_clients = itertools.count(1)


@pytest.fixture(scope="module")
async def shared(postgres: Postgres) -> AsyncIterator[Callable[[], PostgresScim]]:
    """Makes stores that are empty, as each is of another client, on one database."""
    async with postgres.database() as dsn:
        async with scim_store(dsn):
            pass
        async with pooled(dsn, name="aim tests", read_only=False) as pool:
            yield functools.partial(_empty, pool, dsn)


def _empty(pool: Pool, dsn: str) -> PostgresScim:
    return PostgresScim(pool, f"client {next(_clients)}", dsn)


# What a filter means, once more and in plain Python


def exact(text: str) -> str:
    return normalize("NFC", text)


def folded(text: str) -> str:
    return normalize("NFC", exact(text).lower())


def values_of(attribute: ScimAttribute, of: ScimResource, members: Sequence[str]) -> list[object]:
    """All values of the attribute, as they are compared."""
    shown = of.document.get("displayName") if of.kind is ScimKind.USER else of.name
    found: Mapping[ScimAttribute, list[object]] = {
        ScimAttribute.ID: [of.id],
        ScimAttribute.NAME: [folded(of.name)],
        ScimAttribute.DISPLAY_NAME: [folded(shown)] if isinstance(shown, str) else [],
        ScimAttribute.EXTERNAL_ID: [] if of.external_id is None else [exact(of.external_id)],
        ScimAttribute.ACTIVE: [of.active],
        ScimAttribute.EMAIL: [folded(email) for email in of.emails],
        ScimAttribute.MEMBER: list(members),
        ScimAttribute.CREATED: [of.created],
        ScimAttribute.MODIFIED: [of.modified],
    }
    return found[attribute]


def operand(attribute: ScimAttribute, value: str | bool | datetime) -> object:
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    if not isinstance(value, str):
        return value
    if attribute in (ScimAttribute.ID, ScimAttribute.MEMBER):
        return value
    return exact(value) if attribute is ScimAttribute.EXTERNAL_ID else folded(value)


TESTS: Mapping[ScimOperator, Callable[[str, str], bool]] = {
    ScimOperator.CO: lambda actual, wanted: wanted in actual,
    ScimOperator.SW: str.startswith,
    ScimOperator.EW: str.endswith,
}
ORDERS: Mapping[ScimOperator, Callable[[Any, Any], bool]] = {
    ScimOperator.GT: operator.gt,
    ScimOperator.GE: operator.ge,
    ScimOperator.LT: operator.lt,
    ScimOperator.LE: operator.le,
}


def compares(how: ScimOperator, actual: object, wanted: object) -> bool:
    if type(actual) is not type(wanted):
        return False
    if how is ScimOperator.EQ:
        return actual == wanted
    if isinstance(wanted, str) and not storable(wanted):
        return False
    if how in TESTS:
        return isinstance(actual, str) and isinstance(wanted, str) and TESTS[how](actual, wanted)
    return not isinstance(actual, bool) and ORDERS[how](actual, wanted)


def storable(text: str) -> bool:
    return "\x00" not in text and text == text.encode(errors="replace").decode()


def holds(filter_: ScimFilter, of: ScimResource, members: Sequence[str]) -> bool:
    match filter_:
        case ScimCompare(attribute, ScimOperator.NE, value):
            return not holds(ScimCompare(attribute, ScimOperator.EQ, value), of, members)
        case ScimCompare(attribute, how, value):
            wanted = operand(attribute, value)
            return any(compares(how, actual, wanted) for actual in values_of(attribute, of, members))
        case ScimPresent(attribute):
            return any(value != "" for value in values_of(attribute, of, members))
        case ScimAll(parts):
            return all(holds(part, of, members) for part in parts)
        case ScimAny(parts):
            return any(holds(part, of, members) for part in parts)
        case ScimNot(part):
            return not holds(part, of, members)


def in_order(
    found: Sequence[tuple[ScimResource, Sequence[str]]], by: ScimAttribute, *, descending: bool
) -> list[ScimResource]:
    def place(item: tuple[ScimResource, Sequence[str]]) -> tuple[bool, object, str]:
        # The first e-mail address, the least member; there is one of all others.
        have = values_of(by, *item)
        if by is ScimAttribute.MEMBER:
            have = [min(item[1])] if item[1] else []
        return (not have, have[0] if have else 0, item[0].id)

    return [resource for resource, _ in sorted(found, key=place, reverse=descending)]


# Random ones


@st.composite
def resources(draw: st.DrawFn) -> list[ScimResource]:
    made: list[ScimResource] = []
    for number in range(draw(st.sampled_from([0, 1, 3, 5, 5, 7]))):
        make = draw(st.sampled_from([user, group]))
        document = draw(
            st.sampled_from([{}, {"displayName": None}]) | texts.map(lambda t: {"displayName": t})
        )
        resource = make(
            # Names of users have to differ; in front, where their order shows.
            draw(texts) + (f"#{number}" if make is user else ""),
            external_id=draw(st.none() | texts),
            active=draw(st.booleans()),
            emails=draw(st.lists(texts, max_size=2)),
            document=document,
        )
        made.append(resource)
    return made


def variants(value: object) -> list[str | bool | datetime]:
    """What compares with `value` in one way or another."""
    if isinstance(value, datetime):
        zone = timezone(timedelta(hours=2))
        return [value, value.astimezone(zone), value + timedelta(microseconds=1)]
    if not isinstance(value, str):
        return [True, False]
    middle = len(value) // 2
    parts = [value, value[:middle], value[middle:], value[:-1] + "\U0010ffff"]
    # What the value just follows on, and all that begin with the value do.
    parts += [chr(ord(value[0]) + n) for n in (-1, 1) if value and " " < value[0] < "\ud000"]
    return [text for part in parts for text in (part, part.swapcase(), normalize("NFD", part))]


def comparisons(stored: Sequence[tuple[ScimResource, Sequence[str]]]) -> st.SearchStrategy[ScimFilter]:
    ends: list[str | bool | datetime] = ["", True, False, EARLY, LATE, datetime(2026, 1, 1)]  # noqa: DTZ001 - clients may leave it out
    anything = st.sampled_from(ends) | hostile
    operators, attributes = st.sampled_from(ScimOperator), st.sampled_from(ScimAttribute)
    by_attribute = {
        attribute: [v for item in stored for value in values_of(attribute, *item) for v in variants(value)]
        for attribute in ScimAttribute
    }
    # Most draws are near to what is there.
    near = [
        st.builds(ScimCompare, st.just(attribute), operators, st.sampled_from(known))
        for attribute, known in by_attribute.items()
        if known
    ]
    blind = st.builds(ScimCompare, attributes, operators, anything)
    return st.one_of(*near, *near, blind, st.builds(ScimPresent, attributes))


def filters(stored: Sequence[tuple[ScimResource, Sequence[str]]]) -> st.SearchStrategy[ScimFilter]:
    leaf = comparisons(stored)
    part = leaf | st.builds(ScimNot, leaf)
    parts = st.lists(part, max_size=3)
    both = st.builds(ScimAll, parts) | st.builds(ScimAny, parts)
    return st.one_of(
        leaf, part, both, st.builds(ScimNot, both), st.builds(ScimAny, st.lists(both, max_size=2))
    )


async def fill(
    store: PostgresScim, wanted: Sequence[ScimResource], data: st.DataObject
) -> list[tuple[ScimResource, Sequence[str]]]:
    """Stores them, with members; gives what is there then."""
    for resource in wanted:
        known = [other.id for other in wanted if other is not resource]
        if resource.kind is ScimKind.USER or not known:
            await store.create(resource)
        else:
            await store.create(resource, data.draw(st.lists(st.sampled_from(known), max_size=3)))
    found = [resource async for resource in store.scan(BOTH, 100)]
    members = await store.members([resource.id for resource in found])
    return [(resource, [member.id for member in members[resource.id]]) for resource in found]


# Not made smaller: each step would take as long as an example, and the filter says enough.
@settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
async def test_a_search_finds_what_the_filter_means(
    shared: Callable[[], PostgresScim], data: st.DataObject
) -> None:
    store = shared()
    stored = await fill(store, data.draw(resources()), data)
    kinds = data.draw(st.sampled_from([BOTH, BOTH, [ScimKind.USER], [ScimKind.GROUP], []]))
    asked = data.draw(st.lists(filters(stored), min_size=30, max_size=30))
    for number, filter_ in enumerate((None, *asked)):
        by, descending = data.draw(st.tuples(st.sampled_from(ScimAttribute), st.booleans()))
        hits = [
            item for item in stored if item[0].kind in kinds and (filter_ is None or holds(filter_, *item))
        ]
        expected = in_order(hits, by, descending=descending)
        query = ScimQuery(kinds=kinds, filter=filter_, sort_by=by, descending=descending)
        page = await store.search(query)
        assert page.resources == expected, filter_
        assert (page.total, page.is_first, page.is_last) == (len(expected), True, True)
        if number % 6 == 0:
            count = data.draw(st.integers(1, 3))
            await assert_pages(store, functools.partial(_paged, query, count), count, expected)


def _paged(query: ScimQuery, count: int, **place: object) -> ScimQuery:
    return ScimQuery(
        kinds=query.kinds,
        filter=query.filter,
        sort_by=query.sort_by,
        descending=query.descending,
        count=count,
        **place,  # type: ignore[arg-type]  # offset, after or before
    )


async def assert_pages(
    store: PostgresScim, paged: Callable[..., ScimQuery], count: int, expected: Sequence[ScimResource]
) -> None:
    """By index, by cursor forward, and by cursor back again, each page is the same."""
    pages: list[ScimPage] = []
    for start in range(0, len(expected), count):
        page = await store.search(paged(offset=start))
        assert page.resources == expected[start : start + count]
        assert (page.total, page.is_first) == (len(expected), start == 0)
        assert page.is_last == (start + count >= len(expected))
        pages.append(page)
    for earlier, later in itertools.pairwise(pages):
        assert await store.search(paged(after=earlier.last)) == later
        assert await store.search(paged(before=later.first)) == earlier


async def test_one_text_is_found_in_both_its_forms(shared: Callable[[], PostgresScim]) -> None:
    composed, decomposed = "Ren\u00e9", "Rene\u0301"
    for stored, wanted in ((composed, decomposed), (decomposed, composed)):
        store = shared()
        rene = await store.create(
            user(stored, external_id=stored, emails=[stored], document={"displayName": stored})
        )
        texts_of = (
            ScimAttribute.NAME,
            ScimAttribute.EXTERNAL_ID,
            ScimAttribute.EMAIL,
            ScimAttribute.DISPLAY_NAME,
        )
        for attribute in texts_of:
            for how in (ScimOperator.EQ, ScimOperator.SW, ScimOperator.EW, ScimOperator.CO):
                query = ScimQuery(kinds=BOTH, filter=ScimCompare(attribute, how, wanted))
                assert (await store.search(query)).resources == [rene]
        # What is told is what was given.
        assert rene.external_id == stored


# Paging


async def test_pages_are_stable_while_others_come_and_go(shared: Callable[[], PostgresScim]) -> None:
    store = shared()
    lasting = [await store.create(user(f"lasting-{n}")) for n in range(20)]
    passing = [await store.create(user(f"passing-{n}")) for n in range(20)]
    for sort_by in (ScimAttribute.CREATED, ScimAttribute.NAME, ScimAttribute.ID):
        seen: list[str] = []
        page = await store.search(ScimQuery(kinds=[ScimKind.USER], sort_by=sort_by, count=5))
        number = 0
        while not page.is_last:
            seen += [found.id for found in page.resources]
            # The very one that the cursor names goes too, if it may.
            last = page.resources[-1]
            if last in passing:
                await store.delete(ScimKind.USER, last.id)
            number += 1
            await store.create(user(f"a-new-{sort_by}-{number}"))
            await store.create(user(f"z-new-{sort_by}-{number}"))
            page = await store.search(
                ScimQuery(kinds=[ScimKind.USER], sort_by=sort_by, count=5, after=page.last)
            )
        seen += [found.id for found in page.resources]
        assert len(seen) == len(set(seen))
        assert {found.id for found in lasting} <= set(seen)


async def test_a_page_of_nothing_counts_all_the_same(shared: Callable[[], PostgresScim]) -> None:
    store = shared()
    for name in ("ann", "bob"):
        await store.create(user(name))
    nothing = await store.search(ScimQuery(kinds=[ScimKind.USER], count=0))
    assert (nothing.total, nothing.resources, nothing.first, nothing.is_last) == (2, [], None, False)
    beyond = await store.search(ScimQuery(kinds=[ScimKind.USER], offset=10**30, count=10**30))
    assert (beyond.total, beyond.resources, beyond.is_first, beyond.is_last) == (2, [], False, True)
    below = await store.search(ScimQuery(kinds=[ScimKind.USER], offset=-5, count=-5))
    assert (below.total, below.resources) == (2, [])


@pytest.mark.parametrize(
    ("sort_by", "cursor"),
    [
        (ScimAttribute.NAME, ("", "x")),
        (ScimAttribute.NAME, ("ann", "x")),
        (ScimAttribute.NAME, ("=\x00", "x")),
        (ScimAttribute.NAME, ("=ann", "\ud800")),
        (ScimAttribute.CREATED, ("=yesterday", "x")),
        (ScimAttribute.CREATED, ("", "x")),
        (ScimAttribute.ACTIVE, ("=perhaps", "x")),
    ],
)
async def test_a_cursor_that_is_none_is_told(
    shared: Callable[[], PostgresScim], sort_by: ScimAttribute, cursor: tuple[str, str]
) -> None:
    for place in ({"after": cursor}, {"before": cursor}):
        with pytest.raises(ScimInvalidCursor):
            await shared().search(ScimQuery(kinds=BOTH, sort_by=sort_by, **place))  # type: ignore[arg-type]  # one of the two


# Bounds


async def test_a_filter_may_be_large_but_not_endless(shared: Callable[[], PostgresScim]) -> None:
    store = shared()
    ann = await store.create(user("ann"))
    parts = [ScimCompare(ScimAttribute.NAME, ScimOperator.EQ, f"n{n}") for n in range(900)]
    wide = ScimAny([*parts, ScimPresent(ScimAttribute.NAME)])
    assert (await store.search(ScimQuery(kinds=BOTH, filter=wide))).resources == [ann]
    deep: ScimFilter = ScimPresent(ScimAttribute.NAME)
    for _ in range(50):
        deep = ScimNot(deep)
    assert (await store.search(ScimQuery(kinds=BOTH, filter=deep))).resources == [ann]
    for too_much in (ScimNot(deep), ScimAll([wide, wide])):
        with pytest.raises(ScimTooComplex):
            await store.search(ScimQuery(kinds=BOTH, filter=too_much))


# Indexes


@pytest.fixture(scope="module")
async def full(postgres: Postgres) -> AsyncIterator[asyncpg.Connection]:
    """A connection with a database in which it is worth while to use an index."""
    async with postgres.database() as dsn, scim_store(dsn) as store:
        connection = await asyncpg.connect(dsn, server_settings={"search_path": "pg_catalog"})
        people = [
            user(
                f"user{n}",
                external_id=f"ext{n}",
                active=n % 100 != 0,
                emails=[f"user{n}@example.com"],
                document={"displayName": f"User {n}", "padding": "x" * 500},
            )
            for n in range(3_000)
        ]
        rows = [("corp", person.kind.value, person.id, *values(person)) for person in people]
        groups = [group(f"group{n}") for n in range(1_000)]
        rows += [("corp", one.kind.value, one.id, *values(one)) for one in groups]
        async with connection.transaction():
            await connection.executemany(QUERIES["scim_create"], rows)
        for one, person in zip(groups, people, strict=False):
            await connection.execute(QUERIES["scim_add_members"], "corp", one.id, [person.id])
        for table in ("scim_resources", "scim_memberships"):
            await connection.execute(f"vacuum analyze aim.{table}")
        assert (await store.growth()).memberships == 1_000
        yield connection
        await connection.close()


FIND = ScimOperator.EQ
INDEXED = [
    (ScimKind.USER, ScimAttribute.ID, FIND, "user-000001", "scim_resources_pkey"),
    (ScimKind.USER, ScimAttribute.NAME, FIND, "USER7", "scim_user_name"),
    (ScimKind.USER, ScimAttribute.NAME, ScimOperator.SW, "USER77", "scim_user_name"),
    (ScimKind.GROUP, ScimAttribute.NAME, FIND, "Group7", "scim_group_name"),
    (ScimKind.USER, ScimAttribute.DISPLAY_NAME, FIND, "user 7", "scim_display"),
    (ScimKind.USER, ScimAttribute.EXTERNAL_ID, FIND, "ext7", "scim_external"),
    (ScimKind.USER, ScimAttribute.EMAIL, FIND, "User7@example.com", "scim_email"),
    (ScimKind.USER, ScimAttribute.ACTIVE, FIND, False, "scim_inactive"),
    (ScimKind.GROUP, ScimAttribute.MEMBER, FIND, "user-000001", "scim_member"),
    (ScimKind.USER, ScimAttribute.CREATED, ScimOperator.GT, datetime(2100, 1, 1, tzinfo=UTC), "scim_created"),
    (
        ScimKind.USER,
        ScimAttribute.MODIFIED,
        ScimOperator.GT,
        datetime(2100, 1, 1, tzinfo=UTC),
        "scim_modified",
    ),
]


@pytest.mark.parametrize("generic", [False, True], ids=["once", "prepared"])
@pytest.mark.parametrize(("kind", "attribute", "how", "value", "index"), INDEXED)
async def test_every_attribute_is_found_by_its_index(
    full: asyncpg.Connection,
    kind: ScimKind,
    attribute: ScimAttribute,
    how: ScimOperator,
    value: str | bool | datetime,
    index: str,
    generic: bool,
) -> None:
    search = Search(ScimQuery(kinds=[kind], filter=ScimCompare(attribute, how, value)), "corp")
    plan = await explain(full, search, generic=generic)
    assert f" {index} " in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize("sort_by", [ScimAttribute.CREATED, ScimAttribute.MODIFIED])
async def test_a_page_behind_a_cursor_is_read_and_nothing_before_it(
    full: asyncpg.Connection, sort_by: ScimAttribute
) -> None:
    cursor = ("=2020-01-01T00:00:00+00:00", "user")
    plan = await explain(
        full, Search(ScimQuery(kinds=[ScimKind.USER], sort_by=sort_by, after=cursor), "corp")
    )
    column = "created" if sort_by is ScimAttribute.CREATED else "modified"
    bounded = rf"Index Scan using scim_{column} .*\n +Index Cond: .*ROW\({column}, id\) >"
    assert re.search(bounded, plan)


async def explain(connection: asyncpg.Connection, search: Search, *, generic: bool = False) -> str:
    """The plan for these arguments or, generic, the one that a statement has after many uses."""
    if not generic:
        rows = await connection.fetch(f"explain {search.sql}", *search.arguments)
    else:
        await connection.execute("set plan_cache_mode = force_generic_plan")
        await connection.execute(f"prepare search as {search.sql}")
        nothing = ", ".join(["null"] * len(search.arguments))
        rows = await connection.fetch(f"explain execute search({nothing})")
        await connection.execute("deallocate search")
    return "\n".join(row[0] for row in rows)
