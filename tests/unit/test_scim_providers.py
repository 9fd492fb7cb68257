"""Entra ID, in both of its dialects, and Okta, request by request as they really provision."""

from __future__ import annotations

from typing import Any

import pytest

from aim.bridges.scim.dialects import Operation, document, operations
from aim.bridges.scim.resources import ENTERPRISE, GROUP, USER
from aim.ports.scim import ScimKind
from tests.unit.scim_client import Service, a_user, ops, service

ADSCIM = "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"

ENTRA_USER = {
    "schemas": [USER, ENTERPRISE],
    "externalId": "0a21f0f2-8d2a-4f8e-bf98-7363c4aed4ef",
    "userName": "Ann@contoso.onmicrosoft.com",
    "active": True,
    "displayName": "Ann Example",
    "addresses": [{"primary": False, "type": "work", "country": "DE"}],
    "emails": [{"primary": True, "type": "work", "value": "ann@contoso.com"}],
    "meta": {"resourceType": "User"},
    "name": {"familyName": "Example", "givenName": "Ann", "formatted": "Ann Example"},
    "roles": [],
    "title": None,
    ENTERPRISE: {"employeeNumber": "7", "department": "IT", "manager": "5d1b"},
}


async def _entra() -> tuple[Service, dict[str, Any], dict[str, Any]]:
    """A service in which Entra made one user and one group."""
    scim = service()
    user = await scim.made("/Users", ENTRA_USER)
    group = await scim.made(
        "/Groups",
        {
            "schemas": [GROUP, ADSCIM],
            "externalId": "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159",
            "displayName": "IT",
            "meta": {"resourceType": "Group"},
        },
    )
    return scim, user, group


async def test_entra_tests_the_connection() -> None:
    answer = await service().call("GET", "/Users", params={"filter": 'userName eq "5dce8b5a-nobody"'})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/scim+json"
    assert answer.json() == {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": 0,
        "itemsPerPage": 0,
        "startIndex": 1,
        "Resources": [],
    }


async def test_entra_makes_what_it_did_not_find() -> None:
    scim, user, group = await _entra()
    assert user[ENTERPRISE] == {"employeeNumber": "7", "department": "IT", "manager": {"value": "5d1b"}}
    assert "title" not in user
    assert group["schemas"] == [GROUP]
    assert await scim.names('userName eq "ann@CONTOSO.onmicrosoft.com"') == [ENTRA_USER["userName"]]
    assert await scim.names('externalId eq "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159"', "/Groups") == ["IT"]


@pytest.mark.parametrize("dialect", ["default", "aadOptscim062020"])
async def test_entra_changes_a_user(dialect: str) -> None:
    scim, user, _ = await _entra()
    where = f"/Users/{user['id']}"
    old = [
        {"op": "Replace", "path": "displayName", "value": "Ann Beispiel"},
        {"op": "Replace", "path": "name.familyName", "value": "Beispiel"},
        {"op": "Add", "path": 'emails[type eq "work"].value', "value": "ab@contoso.com"},
        {"op": "Add", "path": 'phoneNumbers[type eq "mobile"].value', "value": "123"},
        {"op": "Add", "path": f"{ENTERPRISE}:manager", "value": [{"$ref": None, "value": "77aa"}]},
        {"op": "Replace", "path": f"{ENTERPRISE}:department", "value": "HR"},
        {"op": "Replace", "path": 'roles[primary eq "True"].value', "value": "Chief"},
        {"op": "Replace", "path": "active", "value": "False"},
    ]
    new = [
        {
            "op": "replace",
            "value": {
                "displayName": "Ann Beispiel",
                "name.familyName": "Beispiel",
                'emails[type eq "work"].value': "ab@contoso.com",
                'phoneNumbers[type eq "mobile"].value': "123",
                f"{ENTERPRISE}:manager": "77aa",
                ENTERPRISE: {"department": "HR"},
                'roles[primary eq "True"].value': "Chief",
                "active": False,
            },
        }
    ]
    answer = await scim.call("PATCH", where, ops(*(old if dialect == "default" else new)))
    assert answer.status_code == 200
    changed = answer.json()
    assert changed["displayName"] == "Ann Beispiel"
    assert changed["name"] == {"familyName": "Beispiel", "givenName": "Ann", "formatted": "Ann Example"}
    assert changed["emails"] == [{"primary": True, "type": "work", "value": "ab@contoso.com"}]
    assert changed["phoneNumbers"] == [{"type": "mobile", "value": "123"}]
    assert changed["roles"] == [{"primary": True, "value": "Chief"}]
    assert changed[ENTERPRISE] == {"employeeNumber": "7", "department": "HR", "manager": {"value": "77aa"}}
    assert changed["active"] is False
    # Who is disabled is still there to be read.
    assert (await scim.call("GET", where)).json()["active"] is False


async def test_entra_takes_attributes_away() -> None:
    scim, user, _ = await _entra()
    for operation in (
        {"op": "Remove", "path": "name.givenName"},
        {"op": "Remove", "path": f"{ENTERPRISE}:manager"},
        {"op": "Add", "path": f"{ENTERPRISE}:manager", "value": ""},
        {"op": "Remove", "path": 'emails[type eq "work"].value'},
        {"op": "Add", "path": f"{ENTERPRISE}:manager", "value": "5d1b"},
        {"op": "Remove", "path": f"{ENTERPRISE}:manager", "value": [{"$ref": None, "value": "5d1b"}]},
        {"op": "Remove", "path": "displayName", "value": "Ann Example"},
        {"op": "Remove", "path": f"{ENTERPRISE}:department", "value": ""},
        {"op": "Remove", "path": 'phoneNumbers[type eq "fax"].value', "value": "123"},
    ):
        assert (await scim.call("PATCH", f"/Users/{user['id']}", ops(operation))).status_code == 200
    left = (await scim.call("GET", f"/Users/{user['id']}")).json()
    assert "givenName" not in left["name"]
    assert set(left[ENTERPRISE]) == {"employeeNumber"}
    assert "displayName" not in left
    assert not scim.memory.resources[user["id"]].emails


@pytest.mark.parametrize("dialect", ["default", "aadOptscim062020"])
async def test_entra_moves_members(dialect: str) -> None:
    scim, ann, group = await _entra()
    bob, carl = await scim.user("bob"), await scim.user("carl")
    where = f"/Groups/{group['id']}"

    async def change(op: str, *ids: str) -> int:
        operation: dict[str, object]
        if dialect == "default":
            operation = {"op": op, "path": "members", "value": [{"$ref": None, "value": id_} for id_ in ids]}
            return (await scim.call("PATCH", where, ops(operation))).status_code
        if op == "Add":
            operation = {"op": "add", "value": {"members": [{"value": id_} for id_ in ids]}}
            return (await scim.call("PATCH", where, ops(operation))).status_code
        removals = [{"op": "remove", "path": f'members[value eq "{id_}"]'} for id_ in ids]
        return (await scim.call("PATCH", where, ops(*removals))).status_code

    assert await change("Add", ann["id"], bob["id"], carl["id"]) == 200
    assert await change("Add", ann["id"]) == 200
    assert await change("Remove", ann["id"], carl["id"], "nobody") == 200
    assert await scim.members(group["id"]) == {bob["id"]}
    scim.memory.loaded.clear()
    shown = await scim.found(where, excludedAttributes="members")
    assert "members" not in shown
    assert scim.memory.loaded == []


async def test_entra_asks_whether_somebody_is_a_member() -> None:
    scim, ann, group = await _entra()
    await scim.call(
        "PATCH", f"/Groups/{group['id']}", ops({"op": "Add", "path": "members", "value": ann["id"]})
    )
    asked = 'id eq "{}" and members eq "{}"'
    assert await scim.names(asked.format(group["id"], ann["id"]), "/Groups") == ["IT"]
    assert await scim.names(asked.format(group["id"], "nobody"), "/Groups") == []


async def test_entra_renames_a_group_and_deletes_what_is_gone() -> None:
    scim, ann, group = await _entra()
    renamed = await scim.call(
        "PATCH", f"/Groups/{group['id']}", ops({"op": "Replace", "path": "displayName", "value": "People"})
    )
    assert renamed.json()["displayName"] == "People"
    for where in (f"/Users/{ann['id']}", f"/Groups/{group['id']}"):
        assert (await scim.call("DELETE", where)).status_code == 204
        assert (await scim.call("GET", where)).status_code == 404


async def test_okta_imports_and_puts() -> None:
    scim = service()
    for number in range(150):
        await scim.user(f"user{number:03}")
    first = await scim.found("/Users", startIndex=1, count=100)
    second = await scim.found("/Users", startIndex=101, count=100)
    assert (first["totalResults"], first["itemsPerPage"], second["itemsPerPage"]) == (150, 100, 50)
    assert await scim.names('userName eq "user007"') == ["user007"]

    ann = await scim.user("ann", name={"givenName": "A", "familyName": "B"}, locale="en-US")
    profile = {**ann, "name": {"givenName": "A", "familyName": "C"}, "groups": [], "password": "x"}
    changed = await scim.call("PUT", f"/Users/{ann['id']}", profile)
    assert changed.status_code == 200
    assert changed.json()["name"]["familyName"] == "C"
    gone = await scim.call("PUT", f"/Users/{ann['id']}", {**profile, "active": False})
    assert gone.json()["active"] is False
    back = await scim.call("PATCH", f"/Users/{ann['id']}", ops({"op": "replace", "value": {"active": True}}))
    assert back.json()["active"] is True
    out = await scim.call("PATCH", f"/Users/{ann['id']}", ops({"op": "replace", "value": {"active": False}}))
    assert out.json()["active"] is False


async def test_okta_pushes_groups() -> None:
    scim = service()
    ann, bob = await scim.user("ann"), await scim.user("bob")
    group = await scim.group("staff", [])
    where = f"/Groups/{group['id']}"
    renamed = await scim.call(
        "PATCH", where, ops({"op": "replace", "value": {"id": group["id"], "displayName": "all staff"}})
    )
    assert renamed.json()["displayName"] == "all staff"
    await scim.call(
        "PATCH",
        where,
        ops(
            {"op": "remove", "path": f'members[value eq "{bob["id"]}"]'},
            {"op": "add", "path": "members", "value": [{"value": ann["id"], "display": "ann"}]},
        ),
    )
    assert await scim.members(group["id"]) == {ann["id"]}
    members = [{"value": bob["id"], "display": "bob"}]
    await scim.call("PATCH", where, ops({"op": "replace", "path": "members", "value": members}))
    assert await scim.members(group["id"]) == {bob["id"]}
    whole = {"schemas": [GROUP], "id": group["id"], "displayName": "staff", "members": []}
    await scim.call("PUT", where, whole)
    assert await scim.members(group["id"]) == set()


# -- the dialects alone --------------------------------------------------------------------------------------


def test_truth_values_are_spelled_out_in_bodies() -> None:
    body = a_user(
        "ann", active="True", emails=[{"value": "true", "primary": "False"}], title="True", nickName=None
    )
    assert document(ScimKind.USER, body) == {
        "userName": "ann",
        "active": True,
        "emails": [{"value": "true", "primary": False}],
        "title": "True",
        "nickName": None,
    }


@pytest.mark.parametrize(
    ("given", "path", "value"),
    [
        ({"path": f"{USER}:userName", "value": "x"}, "userName", "x"),
        ({"path": f"{USER.upper()}:active", "value": "true"}, "active", True),
        ({"path": f"{ENTERPRISE.lower()}:division", "value": "x"}, f"{ENTERPRISE}:division", "x"),
        ({"path": 'emails[primary eq "true"].value', "value": "x"}, "emails[primary eq true].value", "x"),
        ({"path": 'emails[type eq "work"].primary', "value": "True"}, 'emails[type eq "work"].primary', True),
        ({"value": {"displayName": "x", "id": "1", "schemas": [], ADSCIM: {}}}, "displayName", "x"),
        ({"path": "title", "value": "True"}, "title", "True"),
        ({"path": "emails", "value": [{"value": "x", "$ref": None}]}, "emails", [{"value": "x"}]),
    ],
)
def test_operations_by_the_book(given: dict[str, object], path: str, value: object) -> None:
    assert operations(ScimKind.USER, ops({"op": "Replace", **given})) == [Operation("replace", path, value)]
