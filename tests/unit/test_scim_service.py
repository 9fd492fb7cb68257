"""The SCIM service by the book: resources, versions, pages, searches, bulk, discovery."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import structlog

from aim.bridges.scim import storage
from aim.bridges.scim.errors import ScimError
from aim.bridges.scim.resources import ENTERPRISE, GROUP, USER
from aim.bridges.scim.writing import Hooks
from aim.errors import HomeserverRefused, HomeserverUnavailable
from aim.ports.scim import ScimResource
from tests.unit.scim_client import BASE, TOKEN, a_group, a_user, enterprise, ops, service

ACTIVE_FALSE = {"op": "replace", "path": "active", "value": False}


# -- resources -----------------------------------------------------------------------------------------------


async def test_a_user_is_created_read_replaced_patched_and_deleted() -> None:
    scim = service()
    made = await scim.call("POST", "/Users", a_user("ann", displayName="Ann", **enterprise(department="IT")))
    assert made.status_code == 201
    user = made.json()
    where = f"{BASE}/Users/{user['id']}"
    assert made.headers["location"] == user["meta"]["location"] == where
    assert made.headers["etag"] == user["meta"]["version"]
    assert user["schemas"] == [USER, ENTERPRISE]
    assert user["active"] is True
    assert user["meta"]["resourceType"] == "User"
    assert user["meta"]["created"] == user["meta"]["lastModified"]

    assert (await scim.call("GET", f"/Users/{user['id']}")).json() == user
    replaced = await scim.call("PUT", f"/Users/{user['id']}", a_user("ann2"))
    assert replaced.status_code == 200
    assert replaced.json()["userName"] == "ann2"
    assert "displayName" not in replaced.json()
    assert ENTERPRISE not in replaced.json()
    patched = await scim.call("PATCH", f"/Users/{user['id']}", ops(ACTIVE_FALSE))
    assert patched.status_code == 200
    assert patched.json()["active"] is False
    assert (await scim.call("DELETE", f"/Users/{user['id']}")).status_code == 204
    assert (await scim.call("GET", f"/Users/{user['id']}")).status_code == 404
    assert (await scim.call("DELETE", f"/Users/{user['id']}")).status_code == 404
    assert len(scim.changes) == 4


async def test_what_is_stored_of_a_user() -> None:
    scim = service(username=f"{ENTERPRISE}:employeeNumber")
    user = await scim.user(
        "Ann@Example.com",
        externalId="e1",
        emails=[{"value": "a@corp.local", "type": "work"}, {"type": "home"}],
        password="not for us",
        unknownAttribute={"a": 1},
        **enterprise(employeeNumber="N 7"),
    )
    stored = scim.memory.resources[user["id"]]
    assert stored == replace(
        stored,
        name="Ann@Example.com",
        external_id="e1",
        active=True,
        localpart="n=207",
        emails=("a@corp.local",),
    )
    assert set(stored.document) == {"userName", "externalId", "emails", "active", ENTERPRISE}


@pytest.mark.parametrize(
    ("mapping", "localpart"),
    [
        ("userName", "ann=40example.com"),
        ("externalId", "e1"),
        ("name.familyName", "o=c3=9f"),
        ("emails.value", "main=40example.com"),
        ('emails[type eq "work"].value', "work=40example.com"),
        (f"{ENTERPRISE}:department", "it"),
        (f"{USER}:displayName", None),
        ("nickName", None),
    ],
)
async def test_any_attribute_can_name_the_localpart(mapping: str, localpart: str | None) -> None:
    scim = service(username=mapping)
    user = await scim.user(
        "Ann@example.com",
        externalId="E1",
        name={"familyName": "Oß"},
        emails=[
            {"value": "work@example.com", "type": "work"},
            {"value": "main@example.com", "primary": True},
        ],
        nickName="x" * 300,
        **enterprise(department="IT"),
    )
    assert scim.memory.resources[user["id"]].localpart == localpart


async def test_names_are_unique_whatever_their_case_and_whoever_is_first() -> None:
    scim = service()
    await scim.user("ann")
    twice = await scim.call("POST", "/Users", a_user("ANN"))
    assert (twice.status_code, twice.json()["scimType"]) == (409, "uniqueness")
    bob = await scim.user("bob")
    renamed = await scim.call("PUT", f"/Users/{bob['id']}", a_user("Ann"))
    assert (renamed.status_code, renamed.json()["scimType"]) == (409, "uniqueness")
    answers = await asyncio.gather(*(scim.call("POST", "/Users", a_user("carl")) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


@pytest.mark.parametrize(
    ("path", "body", "scim_type"),
    [
        ("/Users", {"userName": "ann"}, "invalidSyntax"),
        ("/Users", {"schemas": USER, "userName": "ann"}, "invalidSyntax"),
        ("/Users", {"schemas": [GROUP], "userName": "ann"}, "invalidValue"),
        ("/Users", {"schemas": [USER]}, "invalidValue"),
        ("/Users", a_user(" "), "invalidValue"),
        ("/Users", a_user("ann") | {"userName": ""}, "invalidValue"),
        ("/Users", a_user("ann") | {"userName": 5}, "invalidValue"),
        ("/Users", a_user("ann", active="perhaps"), "invalidValue"),
        ("/Users", a_user("ann", emails="a@example.com"), "invalidValue"),
        ("/Groups", {"schemas": [GROUP]}, "invalidValue"),
        ("/Groups", a_group("g") | {"members": [{"display": "Ann"}]}, "invalidValue"),
        ("/Groups", a_group("g") | {"members": 5}, "invalidValue"),
        ("/Users", [], "invalidSyntax"),
    ],
)
async def test_bodies_that_are_wrong(path: str, body: object, scim_type: str) -> None:
    answer = await service().call("POST", path, body)
    assert (answer.status_code, answer.json()["scimType"]) == (400, scim_type)


async def test_ids_and_other_things_of_ours_are_not_for_clients_to_set() -> None:
    scim = service()
    user = await scim.user("ann", id="mine", meta={"version": "x"}, groups=[{"value": "admins"}])
    assert user["id"] != "mine"
    assert "groups" not in user
    replaced = (await scim.call("PUT", f"/Users/{user['id']}", a_user("ann", id="other"))).json()
    assert replaced["id"] == user["id"]
    for path in ("id", "meta.created", "groups"):
        patched = await scim.call(
            "PATCH", f"/Users/{user['id']}", ops({"op": "add", "path": path, "value": "x"})
        )
        assert (patched.status_code, patched.json()["scimType"]) == (400, "mutability")


async def test_leaving_members_or_active_out_of_a_put_is_no_word_that_anybody_goes() -> None:
    scim = service()
    ann = await scim.user("ann")
    group = await scim.group("staff", [ann["id"]])
    await scim.call("PUT", f"/Groups/{group['id']}", a_group("all staff"))
    assert await scim.members(group["id"]) == {ann["id"]}
    await scim.call("PUT", f"/Groups/{group['id']}", a_group("all staff", []))
    assert await scim.members(group["id"]) == set()
    await scim.call("PATCH", f"/Users/{ann['id']}", ops(ACTIVE_FALSE))
    assert (await scim.call("PUT", f"/Users/{ann['id']}", a_user("ann"))).json()["active"] is False
    assert (await scim.call("PUT", f"/Users/{ann['id']}", a_user("ann", active=True))).json()[
        "active"
    ] is True


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "active"},
        {"op": "replace", "path": "active", "value": None},
        {"op": "replace", "value": {"active": None, "title": "Boss"}},
    ],
)
async def test_nobody_comes_back_by_a_word_left_out(operation: Mapping[str, object]) -> None:
    scim = service()
    disabled, enabled = await scim.user("ann", active=False), await scim.user("bob")
    for user in (disabled, enabled):
        patch = ops({"op": "add", "path": "title", "value": "Boss"}, operation)
        assert (await scim.call("PATCH", f"/Users/{user['id']}", patch)).status_code == 200
    for patched in (False, True):
        assert scim.memory.resources[disabled["id"]].active is False
        assert scim.memory.resources[enabled["id"]].active is True
        assert await scim.names("active eq false") == ["ann"]
        assert await scim.names('active eq false and title eq "Boss"') == ["ann"]
        if not patched:
            again = ops({"op": "add", "path": "nickName", "value": "Annie"})
            await scim.call("PATCH", f"/Users/{disabled['id']}", again)
    put = await scim.call("PUT", f"/Users/{disabled['id']}", a_user("ann", active=None))
    assert put.json()["active"] is False


async def test_patch_paths_are_strict_and_a_patch_is_all_or_nothing() -> None:
    scim = service()
    user = await scim.user("ann", title="Boss")
    where = f"/Users/{user['id']}"
    wrong: list[tuple[Mapping[str, object], str]] = [
        ({"op": "add", "path": "favouriteColour", "value": "blue"}, "invalidPath"),
        ({"op": "add", "value": {"favouriteColour": "blue"}}, "invalidPath"),
        ({"op": "add", "path": "emails[", "value": "blue"}, "invalidPath"),
        ({"op": "remove"}, "noTarget"),
        ({"op": "remove", "path": "userName"}, "mutability"),
        ({"op": "shake", "path": "title", "value": "x"}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": ""}, "invalidValue"),
        ({"op": "add", "path": "title"}, "invalidValue"),
        ({"op": "add", "value": "title"}, "invalidValue"),
    ]
    for operation, scim_type in wrong:
        patch = ops({"op": "replace", "path": "title", "value": "Chief"}, operation)
        answer = await scim.call("PATCH", where, patch)
        assert (answer.status_code, answer.json()["scimType"]) == (400, scim_type), operation
    assert (await scim.call("GET", where)).json() == user


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "active", "value": "perhaps"},
        {"op": "add", "path": "emails", "value": "ann@example.com"},
        {"op": "add", "path": "emails", "value": [{"value": "ann@example.com", "colour": "blue"}]},
        {"op": "replace", "path": "profileUrl", "value": "ann@example.com"},
        {"op": "replace", "path": f"{ENTERPRISE}:manager", "value": 5},
    ],
)
async def test_why_a_patch_is_refused_is_one_line_about_it(operation: Mapping[str, object]) -> None:
    scim = service()
    user = await scim.user("ann")
    answer = await scim.call("PATCH", f"/Users/{user['id']}", ops(operation))
    assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidValue")
    detail = answer.json()["detail"]
    assert "\n" not in detail
    assert "pydantic" not in detail
    assert "validation error" not in detail


# -- versions ------------------------------------------------------------------------------------------------


async def test_versions_bind_requests_that_name_one() -> None:
    scim = service()
    first = await scim.user("ann")
    where, version = f"/Users/{first['id']}", {"If-Match": first["meta"]["version"]}
    not_changed = await scim.call("GET", where, headers={"If-None-Match": first["meta"]["version"]})
    assert (not_changed.status_code, not_changed.content) == (304, b"")
    changed = await scim.call("PATCH", where, ops(ACTIVE_FALSE), headers=version)
    assert changed.status_code == 200
    assert changed.headers["etag"] != first["meta"]["version"]
    for method, body in (("PUT", a_user("ann")), ("PATCH", ops(ACTIVE_FALSE)), ("DELETE", None)):
        assert (await scim.call(method, where, body, headers=version)).status_code == 412
    assert (await scim.call("DELETE", where, headers={"If-Match": "*"})).status_code == 204


async def test_what_changes_nothing_keeps_the_version() -> None:
    scim = service()
    user = await scim.user("ann", active=False)
    same = await scim.call("PATCH", f"/Users/{user['id']}", ops(ACTIVE_FALSE))
    assert same.headers["etag"] == user["meta"]["version"]
    assert len(scim.changes) == 1


async def test_a_race_is_the_business_of_those_who_sent_if_match() -> None:
    scim = service()
    user = await scim.user("ann")
    where = f"/Users/{user['id']}"
    scim.memory.races += [user["id"]] * 3
    assert (await scim.call("PATCH", where, ops(ACTIVE_FALSE))).json()["active"] is False
    now = (await scim.call("GET", where)).headers["etag"]
    scim.memory.races.append(user["id"])
    back = ops({"op": "replace", "path": "active", "value": True})
    assert (await scim.call("PATCH", where, back, headers={"If-Match": now})).status_code == 412


async def test_if_match_holds_for_members_too() -> None:
    scim = service()
    ann = await scim.user("ann")
    group = await scim.group("staff")
    add = ops({"op": "add", "path": "members", "value": [{"value": ann["id"]}]})
    where = f"/Groups/{group['id']}"
    assert (await scim.call("PATCH", where, add, headers={"If-Match": 'W/"9"'})).status_code == 412
    headers = {"If-Match": group["meta"]["version"]}
    assert (await scim.call("PATCH", where, add, headers=headers)).status_code == 200
    assert (await scim.call("PATCH", "/Groups/nobody", add)).status_code == 404


# -- answers with a part -------------------------------------------------------------------------------------


async def test_attributes_and_excluded_attributes() -> None:
    scim = service()
    user = await scim.user(
        "ann", title="Boss", name={"givenName": "Ann", "familyName": "X"}, **enterprise(department="IT")
    )
    where = f"/Users/{user['id']}"

    async def keys(**parameters: str) -> set[str]:
        return set(await scim.found(where, **parameters))

    assert await keys(attributes="USERNAME") == {"schemas", "id", "userName"}
    assert await keys(attributes=f"{USER}:title, unknown") == {"schemas", "id", "title"}
    assert (await scim.found(where, attributes="name.givenName"))["name"] == {"givenName": "Ann"}
    assert (await scim.found(where, excludedAttributes="name.givenName"))["name"] == {"familyName": "X"}
    assert await keys(attributes=f"{ENTERPRISE}:department") == {"schemas", "id", ENTERPRISE}
    assert await keys(attributes=ENTERPRISE) == {"schemas", "id", ENTERPRISE}
    assert await keys(excludedAttributes="id,userName,title,name,meta,active") == {
        "schemas",
        "id",
        ENTERPRISE,
    }
    both = await scim.call("GET", where, params={"attributes": "title", "excludedAttributes": "name"})
    assert both.status_code == 400
    assert (await scim.call("GET", where, params={"attributes": "a[b"})).status_code == 400


async def test_members_are_loaded_for_those_who_ask() -> None:
    scim = service()
    ann = await scim.user("ann")
    group = await scim.group("staff", [ann["id"]])
    assert group["members"] == [{"value": ann["id"], "$ref": f"{BASE}/Users/{ann['id']}", "type": "User"}]
    scim.memory.loaded.clear()
    where = f"/Groups/{group['id']}"
    assert "members" not in await scim.found(where, excludedAttributes="members")
    assert "members" not in await scim.found(where, attributes="displayName")
    assert "members" not in (await scim.found("/Groups", excludedAttributes="members"))["Resources"][0]
    filter_ = f'id eq "{group["id"]}" and members eq "{ann["id"]}"'
    assert (await scim.found("/Groups", filter=filter_, attributes="id"))["totalResults"] == 1
    assert scim.memory.loaded == []
    assert (await scim.found(where, attributes="members"))["members"][0]["display"] == "ann"
    assert len(scim.memory.loaded) == 1


async def test_users_are_shown_with_their_groups() -> None:
    scim = service()
    ann = await scim.user("ann")
    group = await scim.group("staff", [ann["id"]])
    shown = (await scim.call("GET", f"/Users/{ann['id']}")).json()["groups"]
    assert [(one["value"], one["display"], one["type"]) for one in shown] == [
        (group["id"], "staff", "direct")
    ]


# -- searches ------------------------------------------------------------------------------------------------


async def _people(**more: Any) -> Any:
    scim = service(**more)
    for number in range(25):
        await scim.user(
            f"user{number:02}",
            displayName=f"Person {number % 5}",
            active=number % 2 == 0,
            externalId=f"X{number}",
            title="Boss" if number == 7 else "Staff",
            emails=[{"value": f"u{number}@example.com", "type": "work" if number % 3 else "home"}],
        )
    return scim


@pytest.mark.parametrize(
    ("filter_", "names"),
    [
        ('userName eq "USER03"', ["user03"]),
        ('userName eq "user03" and active eq true', []),
        ('externalId eq "X3"', ["user03"]),
        ('externalId eq "x3"', []),
        ('emails.value eq "U4@example.com"', ["user04"]),
        ('emails eq "u4@example.com"', ["user04"]),
        ('emails[type eq "work"].value eq "u4@example.com"', ["user04"]),
        ('emails[type eq "home"].value eq "u4@example.com"', []),
        ('emails[type eq "work" and value eq "u4@example.com"]', ["user04"]),
        ('userName sw "user0" and not (userName le "user07")', ["user08", "user09"]),
        ('title eq "boss"', ["user07"]),
        ('(title eq "boss" or userName eq "user08") and userName pr', ["user07", "user08"]),
        ('displayName ew "4" and active eq "False"', ["user09", "user19"]),
        (
            'userName ew "1" or userName ew "2" and active eq true',
            ["user01", "user02", "user11", "user12", "user21", "user22"],
        ),
        ('meta.lastModified gt "2100-01-01T00:00:00Z"', []),
        ("nickName pr", []),
        (f'{USER}:userName eq "user00"', ["user00"]),
        (f'{ENTERPRISE}:department eq "IT"', []),
        ('userName eq "%"', []),
        ('userName co "user1%"', []),
    ],
)
async def test_filters(filter_: str, names: list[str]) -> None:
    scim = await _people()
    assert await scim.names(filter_) == names


@pytest.mark.parametrize(
    "filter_",
    [
        "",
        "userName",
        'userName eq ann"',
        "userName eq 5 or",
        "active gt true",
        'unknown eq "x"',
        'userName eq "\\u0000"',
        'userName eq "\\ud800"',
        "(" * 50 + "userName pr" + ")" * 49,
        "not (" * 50 + "userName pr" + ")" * 50,
    ],
)
async def test_filters_that_are_none(filter_: str) -> None:
    answer = await service().call("GET", "/Users", params={"filter": filter_})
    assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidFilter")


async def test_pages_by_index() -> None:
    scim = await _people()
    names = []
    for start in (1, 11, 21, 31):
        page = await scim.found(
            "/Users", startIndex=start, count=10, sortBy="userName", sortOrder="descending"
        )
        assert page["totalResults"] == 25
        assert page["startIndex"] == start
        assert page["itemsPerPage"] == len(page["Resources"])
        names += [one["userName"] for one in page["Resources"]]
    assert names == [f"user{number:02}" for number in reversed(range(25))]
    assert (await scim.found("/Users", startIndex=-5, count=-1))["itemsPerPage"] == 0
    assert (await scim.found("/Users", startIndex=0, count=2))["startIndex"] == 1
    assert (await scim.found("/Users", startIndex=10**30))["Resources"] == []
    assert (await scim.call("GET", "/Users", params={"count": "many"})).status_code == 400


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"sortBy": "userName", "sortOrder": "descending"},
        {"sortBy": "title"},
        {"filter": 'title eq "staff"'},
        {"filter": 'title eq "staff"', "sortBy": "externalId", "sortOrder": "descending"},
        {"filter": "active eq true"},
    ],
)
async def test_pages_by_cursor_there_and_back(search: dict[str, object]) -> None:
    scim = await _people()
    whole = [one["userName"] for one in (await scim.found("/Users", **search, count=100))["Resources"]]
    there, pages, cursor = [], [], ""
    while True:
        page = await scim.found("/Users", **search, count=4, cursor=cursor)
        assert page["totalResults"] == len(whole)
        assert "startIndex" not in page
        pages.append(page)
        there += [one["userName"] for one in page["Resources"]]
        if "nextCursor" not in page:
            break
        cursor = page["nextCursor"]
    assert there == whole
    assert "previousCursor" not in pages[0]
    for before, after in itertools.pairwise(pages):
        back = await scim.found("/Users", **search, count=4, cursor=after["previousCursor"])
        assert back["Resources"] == before["Resources"]


async def test_a_cursor_serves_the_search_that_it_came_from() -> None:
    scim = await _people()
    cursor = (await scim.found("/Users", count=4, cursor=""))["nextCursor"]
    for parameters, scim_type in [
        ({"count": 5, "cursor": cursor}, "invalidCount"),
        ({"count": 4, "cursor": cursor, "filter": "active eq true"}, "invalidCursor"),
        ({"count": 4, "cursor": "abc"}, "invalidCursor"),
        ({"count": 4, "cursor": cursor[:-2]}, "invalidCursor"),
        ({"count": 4, "cursor": cursor, "startIndex": 1}, "invalidValue"),
    ]:
        answer = await scim.call("GET", "/Users", params=parameters)
        assert (answer.status_code, answer.json()["scimType"]) == (400, scim_type)


async def test_a_secret_of_ours_makes_cursors_outlive_the_process() -> None:
    first = await _people(secret=b"ours")
    cursor = (await first.found("/Users", count=4, cursor=""))["nextCursor"]
    again = service(first.store, secret=b"ours")
    names = [one["userName"] for one in (await again.found("/Users", count=4, cursor=cursor))["Resources"]]
    assert names == ["user04", "user05", "user06", "user07"]


async def test_an_order_without_sort_by_means_nothing() -> None:
    scim = await _people()
    for more in ({}, {"filter": 'title eq "staff" or title pr'}):
        found = await scim.found("/Users", count=2, sortOrder="descending", **more)
        assert [one["userName"] for one in found["Resources"]] == ["user00", "user01"]


async def test_who_asks_for_more_than_can_be_looked_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    scim = await _people()
    monkeypatch.setattr(storage, "MOST_SCANNED", 20)
    for parameters in ({"filter": 'title eq "boss"'}, {"sortBy": "title"}):
        answer = await scim.call("GET", "/Users", params=parameters)
        assert (answer.status_code, answer.json()["scimType"]) == (400, "tooMany")
    # What the store narrows down is not too many.
    assert await scim.names('title eq "boss" and userName sw "user0"') == ["user07"]
    assert await scim.names('emails[type eq "work" and value sw "u7@"]') == ["user07"]


async def test_search_by_post_and_at_the_root() -> None:
    scim = service()
    ann = await scim.user("ann", displayName="Staff of one")
    await scim.group("staff", [ann["id"]])
    asked = {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"],
        "filter": 'userName eq "ann"',
    }
    answer = await scim.call("POST", "/Users/.search", asked)
    assert answer.json()["totalResults"] == 1
    for filter_, total in [
        ('displayName sw "STAFF"', 2),
        ("userName pr", 1),
        ('meta.resourceType eq "Group"', 1),
        (f'members eq "{ann["id"]}"', 1),
        ("meta.created pr", 2),
        ("not (userName pr)", 1),
        ("active eq true", 1),
        (f'id eq "{ann["id"]}" or displayName eq "staff"', 2),
    ]:
        answer = await scim.call("POST", "/.search", {**asked, "filter": filter_})
        assert answer.json()["totalResults"] == total, filter_
    assert (await scim.found("/", filter='userName eq "ann"'))["totalResults"] == 1
    assert (await scim.call("POST", "/Users/.search", [])).status_code == 400


# -- bulk ----------------------------------------------------------------------------------------------------


def bulk(*operations: dict[str, Any], **more: object) -> dict[str, Any]:
    return {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],
        "Operations": list(operations),
        **more,
    }


async def test_a_bulk_request_with_references() -> None:
    scim = service()
    old = await scim.user("old")
    answer = await scim.call(
        "POST",
        "/Bulk",
        bulk(
            {
                "method": "POST",
                "path": "/Groups",
                "bulkId": "g",
                "data": a_group("staff", ["bulkId:u", old["id"]]),
            },
            {"method": "POST", "path": "/Users", "bulkId": "u", "data": a_user("ann")},
            {
                "method": "PATCH",
                "path": "/Users/bulkId:u",
                "data": ops({"op": "Add", "path": "active", "value": "False"}),
            },
            {
                "method": "PUT",
                "path": f"/Users/{old['id']}",
                "data": a_user("new"),
                "version": old["meta"]["version"],
            },
            {"method": "DELETE", "path": "/Users/nobody"},
            {"method": "GET", "path": "/Users"},
        ),
    )
    assert answer.status_code == 200
    said = answer.json()["Operations"]
    assert [one["status"] for one in said] == ["201", "201", "200", "200", "404", "400"]
    assert said[1]["bulkId"] == "u"
    ann = said[1]["location"].rsplit("/", 1)[1]
    assert await scim.members(said[0]["location"].rsplit("/", 1)[1]) == {ann, old["id"]}
    assert (await scim.call("GET", f"/Users/{ann}")).json()["active"] is False
    assert said[4]["response"]["status"] == "404"


async def test_a_bulk_request_ends_after_as_many_errors_as_the_client_takes() -> None:
    scim = service()
    wrong = {"method": "DELETE", "path": "/Users/nobody"}
    answer = await scim.call("POST", "/Bulk", bulk(wrong, wrong, wrong, failOnErrors=2))
    assert len(answer.json()["Operations"]) == 2
    circle = await scim.call(
        "POST",
        "/Bulk",
        bulk(
            {"method": "POST", "path": "/Groups", "bulkId": "a", "data": a_group("a", ["bulkId:b"])},
            {"method": "POST", "path": "/Groups", "bulkId": "b", "data": a_group("b", ["bulkId:a"])},
        ),
    )
    assert {one["status"] for one in circle.json()["Operations"]} >= {"409"}
    assert (await scim.call("POST", "/Bulk", bulk(*[wrong] * 1001))).status_code == 413
    assert (await scim.call("POST", "/Bulk", bulk())).status_code == 400
    odd = await scim.call(
        "POST", "/Bulk", bulk({"method": "POST", "path": "/Me", "bulkId": "x", "data": {}}, {"method": 5})
    )
    assert [one["status"] for one in odd.json()["Operations"]] == ["501", "400"]


async def test_what_a_bulk_request_did_is_told_although_the_database_went_away() -> None:
    scim = service()

    def making(name: str) -> dict[str, Any]:
        return {"method": "POST", "path": "/Groups", "bulkId": name, "data": a_group(name)}

    def away() -> None:
        scim.memory.away = True

    going = service(scim.store, hooks=Hooks(on_change=away))
    answer = await going.call("POST", "/Bulk", bulk(making("one"), making("two"), making("three")))
    assert answer.status_code == 200
    assert [one["status"] for one in answer.json()["Operations"]] == ["201", "503", "503"]
    # Nothing was done: the whole of it may come again.
    assert (await going.call("POST", "/Bulk", bulk(making("four")))).status_code == 503
    scim.memory.away = False
    assert await scim.names("displayName pr", "/Groups") == ["one"]


async def test_a_user_that_the_homeserver_refuses_is_one_operation_of_many() -> None:
    async def may_create(resource: ScimResource) -> None:
        if resource.name == "bad":
            raise HomeserverRefused("M_INVALID_USERNAME", status=400)

    scim = service(hooks=Hooks(may_create=may_create))
    several = [
        {"method": "POST", "path": "/Users", "bulkId": name, "data": a_user(name)}
        for name in ("ann", "bad", "bob")
    ]
    answer = await scim.call("POST", "/Bulk", bulk(*several))
    assert [one["status"] for one in answer.json()["Operations"]] == ["201", "400", "201"]


# -- discovery and errors ------------------------------------------------------------------------------------


async def test_discovery_needs_no_token() -> None:
    scim = service()
    del scim.client.headers["authorization"]
    config = (await scim.call("GET", "/ServiceProviderConfig")).json()
    assert config["bulk"]["maxPayloadSize"] == 2 * 1024 * 1024
    assert config["pagination"]["cursor"] is True
    assert config["authenticationSchemes"][0]["type"] == "oauthbearertoken"
    types = (await scim.call("GET", "/ResourceTypes")).json()["Resources"]
    assert [one["endpoint"] for one in types] == ["/Users", "/Groups"]
    assert types[0]["meta"]["location"] == f"{BASE}/ResourceTypes/User"
    assert (await scim.call("GET", f"/Schemas/{ENTERPRISE}")).json()["id"] == ENTERPRISE
    assert len((await scim.call("GET", "/Schemas")).json()["Resources"]) == 3
    assert (await scim.call("GET", "/Schemas/none")).status_code == 404
    assert (await scim.call("GET", "/Schemas", params={"filter": "x"})).status_code == 403
    for method, path in (("POST", "/Schemas"), ("GET", "/Users"), ("GET", "/none"), ("GET", "/Me")):
        assert (await scim.call(method, path)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/Me", 501),
        ("PATCH", "/Me", 501),
        ("GET", "/Cars", 404),
        ("GET", "/Users/a/b", 404),
        ("DELETE", "/Users", 405),
        ("POST", "/Users/x", 405),
        ("HEAD", "/Users", 405),
        ("OPTIONS", "/Users", 405),
    ],
)
async def test_routes_that_lead_nowhere(method: str, path: str, status: int) -> None:
    scim = service()
    response = await scim.client.request(
        method, BASE + path, json={} if method in ("POST", "PATCH") else None
    )
    assert response.status_code == status
    if status == 405:
        assert "GET" in response.headers["allow"] or "POST" not in response.headers["allow"]


async def test_a_database_that_is_away_is_503_and_said_when_to_try_again() -> None:
    scim = service()
    await scim.user("ann")
    scim.memory.away = True
    for method, path, body in (
        ("GET", "/Users", None),
        ("POST", "/Users", a_user("bob")),
        ("GET", "/Users/x", None),
    ):
        answer = await scim.call(method, path, body)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
    assert (await scim.call("GET", "/ServiceProviderConfig")).status_code == 200


async def test_a_defect_of_ours_tells_strangers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scim = service()

    async def broken(*_: object) -> None:
        raise RuntimeError(f"the secret is {TOKEN}")

    monkeypatch.setattr(scim.memory, "get", broken)
    answer = await scim.call("GET", "/Users/x")
    assert answer.status_code == 500
    assert TOKEN not in answer.text


async def test_addresses_are_those_of_the_public_url() -> None:
    scim = service(public_url="https://id.example.com/people/")
    answer = await scim.call("POST", "/Users", a_user("ann"))
    where = f"https://id.example.com/people/Users/{answer.json()['id']}"
    assert (answer.headers["Location"], answer.json()["meta"]["location"]) == (where, where)


# -- hooks ---------------------------------------------------------------------------------------------------


async def test_synchronous_provisioning_waits_for_the_outcome() -> None:
    asked: list[str] = []
    outcomes: list[str | None] = [None, "the homeserver refused it: user limit"]

    async def outcome_of(resource: ScimResource) -> str | None:
        asked.append(resource.id)
        return outcomes.pop(0)

    scim = service(hooks=Hooks(outcome_of=outcome_of))
    ann = await scim.user("ann")
    failed = await scim.call("PATCH", f"/Users/{ann['id']}", ops(ACTIVE_FALSE))
    assert failed.status_code == 500
    assert "user limit" in failed.json()["detail"]
    assert asked == [ann["id"]] * 2
    assert scim.memory.resources[ann["id"]].active is False


async def test_a_bulk_request_waits_once_for_all_that_it_wrote() -> None:
    together = asyncio.Barrier(3)
    asked: list[str] = []

    async def outcome_of(resource: ScimResource) -> str | None:
        asked.append(resource.name)
        await together.wait()
        return "the homeserver refused it: user limit" if resource.name == "bob" else None

    scim = service(hooks=Hooks(outcome_of=outcome_of))
    several = [
        {"method": "POST", "path": "/Users", "bulkId": "ann", "data": a_user("ann")},
        {"method": "POST", "path": "/Users", "bulkId": "twice", "data": a_user("ANN")},
        {"method": "POST", "path": "/Users", "bulkId": "bob", "data": a_user("bob")},
        {"method": "POST", "path": "/Groups", "bulkId": "all", "data": a_group("all", ["bulkId:bob"])},
    ]
    async with asyncio.timeout(10):
        answer = await scim.call("POST", "/Bulk", bulk(*several))
    said = answer.json()["Operations"]
    assert [one["status"] for one in said] == ["201", "409", "500", "201"]
    assert asked == ["ann", "bob", "all"]
    # It is stored, and the group has it.
    assert "user limit" in said[2]["response"]["detail"]
    assert said[2]["location"].rpartition("/")[2] in await scim.members(
        said[3]["location"].rpartition("/")[2]
    )


async def test_what_we_may_not_ask_is_no_fault_of_the_client() -> None:
    async def may_create(_: ScimResource) -> None:
        raise HomeserverRefused("GET users: 403", "list the client in policy.data.admin_clients", status=403)

    scim = service(hooks=Hooks(may_create=may_create))
    creation = {"method": "POST", "path": "/Users", "bulkId": "ann", "data": a_user("ann")}
    for path, body in (("/Users", a_user("ann")), ("/Bulk", bulk(creation))):
        with structlog.testing.capture_logs() as logged:
            answer = await scim.call("POST", path, body)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        assert "users" not in answer.json()["detail"]
        [line] = logged
        assert (line["cause"], "admin_clients" in line["remedy"]) == ("GET users: 403", True)


async def test_a_new_user_is_checked_before_they_are_stored() -> None:
    checked: list[str | None] = []
    errors: list[Exception] = [
        ScimError(409, "has an account", "uniqueness"),
        HomeserverRefused("bad name", status=400),
        HomeserverUnavailable("away"),
    ]

    async def may_create(resource: ScimResource) -> None:
        if resource.name != "ann":
            raise errors.pop(0)
        checked.append(resource.localpart)

    scim = service(hooks=Hooks(may_create=may_create))
    await scim.user("ann")
    again = await scim.call("POST", "/Users", a_user("ANN"))
    assert again.status_code == 409
    await scim.group("staff")
    assert checked == ["ann"]
    assert [(await scim.call("POST", "/Users", a_user("bob"))).status_code for _ in range(3)] == [
        409,
        400,
        503,
    ]
    assert len(scim.memory.resources) == 2


async def test_who_comes_to_another_localpart_is_checked_like_a_new_user() -> None:
    checked: list[str | None] = []

    async def may_create(resource: ScimResource) -> None:
        checked.append(resource.localpart)
        if resource.localpart == "root":
            raise ScimError(409, "has an account", "uniqueness")

    scim = service(hooks=Hooks(may_create=may_create))
    path = f"/Users/{(await scim.user('ann'))['id']}"
    for method, body in (("PUT", a_user("root")), ("PATCH", _named("root"))):
        answer = await scim.call(method, path, body)
        assert (answer.status_code, answer.json()["scimType"]) == (409, "uniqueness"), method
    assert (await scim.call("PATCH", path, ops(ACTIVE_FALSE))).status_code == 200
    assert (await scim.call("PUT", path, a_user("anna"))).status_code == 200
    assert checked == ["ann", "root", "root", "anna"]
    assert [one.name for one in scim.memory.resources.values()] == ["anna"]


def _named(name: str) -> dict[str, Any]:
    return ops({"op": "replace", "path": "userName", "value": name})


async def test_addresses_are_those_that_the_client_sees() -> None:
    scim = service()
    ann = await scim.user("ann")
    proxied = {
        "X-Forwarded-Proto": "http, https",
        "X-Forwarded-Host": "id.example.org:8443, inner",
        "X-Forwarded-Prefix": "/outer",
    }
    shown = (await scim.call("GET", f"/Users/{ann['id']}", headers=proxied)).json()
    assert shown["meta"]["location"] == f"http://id.example.org:8443/outer/scim/v2/Users/{ann['id']}"
    lies = {
        "X-Forwarded-Host": "evil.example/\x22",
        "X-Forwarded-Proto": "javascript",
        "X-Forwarded-Prefix": "//x",
    }
    shown = (await scim.call("GET", f"/Users/{ann['id']}", headers=lies)).json()
    assert shown["meta"]["location"] == f"{BASE}/Users/{ann['id']}"
    fixed = service(scim.store, public_url="https://public.example.com/scim/v2/")
    shown = (await fixed.call("GET", f"/Users/{ann['id']}", headers=proxied)).json()
    assert shown["meta"]["location"] == f"https://public.example.com/scim/v2/Users/{ann['id']}"
