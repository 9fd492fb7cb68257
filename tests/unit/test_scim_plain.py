"""What is stored without asking the models is what they would have made of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, note
from hypothesis import strategies as st

from aim.bridges.scim import core as core_module
from aim.bridges.scim.core import Core
from aim.bridges.scim.errors import ScimError
from aim.bridges.scim.plain import is_plain
from aim.bridges.scim.resources import ENTERPRISE
from aim.ports.scim import ScimKind
from bench.scim_operations import user

CORE = Core(1_000)
TEXTS = st.sampled_from(
    ["", " ", "Ann", " ann ", "ann@example.com", "work", "Work", "other", "ä\U0001f600", "true"]
)
ANYTHING: st.SearchStrategy[object] = st.one_of(
    st.none(), st.booleans(), st.integers(0, 2), TEXTS, st.lists(TEXTS, max_size=2), st.just({}), st.just([])
)
SIMPLE = {
    ScimKind.USER: "userName externalId displayName nickName title userType locale timezone active",
    ScimKind.GROUP: "displayName externalId",
}
NAME = "formatted familyName givenName middleName honorificPrefix"
ITEM = {"emails": "value display type primary", "addresses": "formatted region country type primary"}
SEVERAL = [
    "emails",
    "addresses",
    "phoneNumbers",
    "ims",
    "photos",
    "entitlements",
    "roles",
    "x509Certificates",
]
EXTENSION = "employeeNumber costCenter department division organization"
WRONG = ["username", "DisplayName", "profileUrl", "$ref", "unknown", "schemas", "Value", "groups"]


@st.composite
def objects(draw: st.DrawFn, names: str) -> dict[str, Any]:
    """Objects with some of these keys, their values as such attributes have them; at times with a fault."""
    found: dict[str, Any] = {}
    for name in draw(st.lists(st.sampled_from(names.split()), unique=True)):
        found[name] = draw(st.booleans() if name in ("active", "primary") else TEXTS)
    if draw(st.integers(0, 9)) == 9:
        name = draw(st.sampled_from([*found, *WRONG]))
        found[name] = draw(ANYTHING)
    return found


@st.composite
def bodies(draw: st.DrawFn, kind: ScimKind) -> dict[str, Any]:
    """Right, nearly right, and wrong ones."""
    body = draw(objects(SIMPLE[kind]))
    if draw(st.integers(0, 9)) < 9:
        body["userName" if kind is ScimKind.USER else "displayName"] = draw(TEXTS)
    if kind is ScimKind.GROUP:
        return body
    for name in draw(st.lists(st.sampled_from(SEVERAL), max_size=2, unique=True)):
        body[name] = draw(st.lists(objects(ITEM.get(name, ITEM["emails"])), min_size=1, max_size=3))
    if draw(st.booleans()):
        body["name"] = draw(objects(NAME))
    if draw(st.booleans()):
        body[ENTERPRISE] = draw(objects(EXTENSION))
        if draw(st.booleans()):
            body[ENTERPRISE]["manager"] = draw(objects("value"))
    return body


@given(st.data())
@pytest.mark.parametrize("kind", ScimKind)
def test_the_models_would_not_change_it(kind: ScimKind, data: st.DataObject) -> None:
    body = data.draw(bodies(kind))
    if not is_plain(kind, body):
        return
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(core_module, "is_plain", lambda *_: False)
        try:
            made: object = CORE.document(kind, body)
        except ScimError as error:
            note(f"refused: {error}")
            made = None
    assert made == CORE.document(kind, body) == body


def test_what_providers_send_is_plain() -> None:
    body = {key: value for key, value in user(7).items() if key != "schemas"}

    assert is_plain(ScimKind.USER, body)
    assert is_plain(ScimKind.GROUP, {"displayName": "Sales", "externalId": "7"})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"displayName": "Ann"},
        {"username": "ann"},
        {"userName": None},
        {"userName": "ann", "active": 1},
        {"userName": "ann", "active": "true"},
        {"userName": "ann", "title": None},
        {"userName": "ann", "groups": [{"value": "1"}]},
        {"userName": "ann", "emails": []},
        {"userName": "ann", "emails": {"value": "a@b"}},
        {"userName": "ann", "emails": [{"value": "a@b", "type": "WORK"}]},
        {"userName": "ann", "emails": [{"value": "a", "primary": True}, {"value": "b", "primary": True}]},
        {"userName": "ann", "name": {}},
        {"userName": "ann", "profileUrl": "https://example.com"},
        {"userName": "ann", ENTERPRISE: {"manager": {"value": "1", "displayName": "Bob"}}},
    ],
)
def test_what_the_models_refuse_or_change_is_not(body: dict[str, object]) -> None:
    assert not is_plain(ScimKind.USER, body)
