"""Filters: what the store is asked, and that the answer is that of the filter as SCIM means it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scim2_models import ScimFilter as LibraryFilter
from scim2_server.utils import parametrize

from aim.bridges.scim.core import Core
from aim.bridges.scim.filters import Narrowed, narrow, sorting
from aim.bridges.scim.resources import ENTERPRISE, GROUP, MODEL, USER
from aim.ports.scim import (
    ScimAll,
    ScimAny,
    ScimAttribute,
    ScimCompare,
    ScimFilter,
    ScimKind,
    ScimNot,
    ScimOperator,
    ScimPresent,
)
from tests.unit.scim_client import Service, enterprise, service

A, EQ = ScimAttribute, ScimOperator.EQ
USERS, GROUPS, BOTH = [ScimKind.USER], [ScimKind.GROUP], list(ScimKind)


def narrowed(text: str, kinds: list[ScimKind]) -> Narrowed:
    search = Core(1000).search(kinds, kinds, {"filter": text})
    assert search.filter is not None
    return narrow(search.filter, kinds)


@pytest.mark.parametrize(
    ("kinds", "text", "expected"),
    [
        (USERS, 'userName eq "a"', ScimCompare(A.NAME, EQ, "a")),
        (USERS, f'{USER}:USERNAME eq "a"', ScimCompare(A.NAME, EQ, "a")),
        (GROUPS, 'displayName eq "a"', ScimCompare(A.NAME, EQ, "a")),
        (USERS, 'displayName co "a"', ScimCompare(A.DISPLAY_NAME, ScimOperator.CO, "a")),
        (USERS, 'externalId ne "a"', ScimNot(ScimCompare(A.EXTERNAL_ID, EQ, "a"))),
        (USERS, "externalId eq null", ScimNot(ScimPresent(A.EXTERNAL_ID))),
        (USERS, "active eq true", ScimCompare(A.ACTIVE, EQ, True)),
        (USERS, 'active eq "False"', ScimCompare(A.ACTIVE, EQ, False)),
        (GROUPS, 'members eq "x"', ScimCompare(A.MEMBER, EQ, "x")),
        (GROUPS, 'members[value eq "x"]', ScimCompare(A.MEMBER, EQ, "x")),
        (GROUPS, "members pr", ScimPresent(A.MEMBER)),
        (USERS, 'emails.value sw "x"', ScimCompare(A.EMAIL, ScimOperator.SW, "x")),
        (
            USERS,
            'id eq "x" and not (userName pr or emails.value pr)',
            ScimAll(
                [
                    ScimCompare(A.ID, EQ, "x"),
                    ScimNot(ScimAny([ScimPresent(A.NAME), ScimPresent(A.EMAIL)])),
                ]
            ),
        ),
        (BOTH, 'externalId eq "x"', ScimCompare(A.EXTERNAL_ID, EQ, "x")),
    ],
)
def test_what_the_store_can_do(kinds: list[ScimKind], text: str, expected: ScimFilter) -> None:
    assert narrowed(text, kinds) == Narrowed(expected, exact=True)


@pytest.mark.parametrize(
    ("kinds", "text", "part"),
    [
        (USERS, 'title eq "x"', None),
        (USERS, f'{ENTERPRISE}:department eq "x"', None),
        (USERS, 'userName eq "a" and title eq "x"', ScimCompare(A.NAME, EQ, "a")),
        (USERS, 'userName eq "a" or title eq "x"', None),
        (USERS, 'not (userName eq "a" and title eq "x")', None),
        (USERS, 'emails[type eq "work" and value eq "x"]', ScimCompare(A.EMAIL, EQ, "x")),
        (USERS, 'emails[value ne "x"]', None),
        (USERS, "emails pr", None),
        (BOTH, 'userName eq "a"', None),
        (BOTH, 'displayName eq "a"', None),
        (BOTH, f'{GROUP}:externalId eq "a"', None),
    ],
)
def test_what_it_can_do_in_part(kinds: list[ScimKind], text: str, part: ScimFilter | None) -> None:
    assert narrowed(text, kinds) == Narrowed(part, exact=False)


def test_dates_are_moments() -> None:
    found = narrowed('meta.lastModified gt "2026-01-01T01:00:00+01:00"', USERS).filter
    assert isinstance(found, ScimCompare)
    assert str(found.value) == "2026-01-01 00:00:00+00:00"


@pytest.mark.parametrize(
    ("path", "kinds", "attribute"),
    [
        ("USERNAME", USERS, A.NAME),
        (f"{GROUP}:displayName", GROUPS, A.NAME),
        ("meta.created", BOTH, A.CREATED),
        ("displayName", USERS, None),
        ("displayName", BOTH, None),
        ("externalId", USERS, None),
        ("title", USERS, None),
    ],
)
def test_what_the_store_sorts_by(path: str, kinds: list[ScimKind], attribute: ScimAttribute | None) -> None:
    assert sorting(path, kinds) == attribute


# -- the same as one by one ----------------------------------------------------------------------------------

TEXTS = st.sampled_from(["", "a", "A", "b", "ab", "ÄB", "äb", "%", "_", "a@x", "user1"])
NAMES = st.sampled_from(
    [
        "userName",
        "displayName",
        "externalId",
        "emails.value",
        "emails",
        "emails.type",
        "id",
        "title",
        "name.givenName",
        "members.value",
        f"{ENTERPRISE}:department",
        "groups.value",
    ]
)
OPERATORS = st.sampled_from(["eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"])


def _quoted(text: str) -> str:
    return f'"{text}"'


ATOMS = st.one_of(
    st.builds(lambda name, op, text: f"{name} {op} {_quoted(text)}", NAMES, OPERATORS, TEXTS),
    st.builds(lambda name: f"{name} pr", NAMES),
    st.sampled_from(
        ["active eq true", "active ne false", "active pr", "externalId eq null", "title ne null"]
    ),
    st.builds(
        lambda op, text, kind: f'emails[value {op} {_quoted(text)} and type eq "{kind}"]',
        OPERATORS,
        TEXTS,
        st.sampled_from(["work", "home"]),
    ),
    st.builds(lambda op, text: f"emails[value {op} {_quoted(text)}]", OPERATORS, TEXTS),
)
FILTERS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds(lambda one: f"not ({one})", inner),
        st.builds(
            lambda one, word, two: f"({one}) {word} ({two})", inner, st.sampled_from(["and", "or"]), inner
        ),
    ),
    max_leaves=5,
)


async def _directory() -> tuple[Service, list[dict[str, Any]]]:
    scim = service()
    await scim.user("a", displayName="ÄB", externalId="A", title="b")
    await scim.user("user1", emails=[{"value": "a@x", "type": "work"}, {"value": "B", "type": "home"}])
    await scim.user("Ab", active=False, externalId="a", emails=[{"type": "work"}], name={"givenName": "a"})
    await scim.user(
        "ab%", displayName="a", emails=[{"value": "ab", "type": "home"}], **enterprise(department="ab")
    )
    everybody = [one["id"] for one in (await scim.found("/Users"))["Resources"]]
    await scim.group("a", everybody[:2], externalId="b")
    await scim.group("ÄB", [])
    shown = []
    for path in ("/Users", "/Groups"):
        shown += (await scim.found(path))["Resources"]
    return scim, shown


# One for all examples: nothing is written to it any more.
DIRECTORY = asyncio.run(_directory())


@settings(deadline=None, max_examples=150)
@given(FILTERS, st.sampled_from(["/Users", "/Groups", "/"]))
async def test_a_search_finds_what_matches_one_by_one(text: str, path: str) -> None:
    scim, shown = DIRECTORY
    answer = await scim.call("GET", path, params={"filter": text})
    if answer.status_code == 400:
        # Names that this kind has not, comparisons that its type has not.
        assert answer.json()["scimType"] == "invalidFilter"
        return
    found = {one["id"] for one in answer.json()["Resources"]}
    kinds = {"/Users": ["User"], "/Groups": ["Group"], "/": ["User", "Group"]}[path]
    for one in shown:
        kind = ScimKind(one["meta"]["resourceType"])
        matches = parametrize(LibraryFilter, MODEL[kind])(text).match(MODEL[kind].model_validate(one))
        assert (one["id"] in found) == (matches and kind.value in kinds), one
