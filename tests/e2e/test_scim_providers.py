"""Entra ID, in both of its dialects, and Okta push a directory down to the spaces of a real Synapse.

What each of their requests does by itself: `tests/unit/test_scim_providers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.e2e.kit import Command, Stage, until
from tests.e2e.scim_kit import GROUP, TOKEN, USER, Client, Json, asked_in, pushed_to
from tests.e2e.test_usage_scenarios import FIRST, is_

pytestmark = pytest.mark.e2e

ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
ADSCIM = "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"
LABORATORY = "8aa1a0c0-c4c3-4bc0-b4a5-2ef676900159"
"""The object id that Entra has for the group."""
SPACES: Sequence[Json] = (
    {"id": "lab", "name": "Lab", "groups": [{"externalId": LABORATORY}]},
    {"id": "bakery", "name": "Bakery", "groups": [{"externalId": "Bakers"}]},
)
PAGE = 100


async def says_ready(stage: Stage, counted: str) -> None:
    """`aim scim status` tells that many, and somebody says that these are all."""
    status = await stage.aim("scim", "status")
    assert (status.code, counted in status.out) == (0, True), status
    assert (await stage.aim("scim", "ready", "--yes")).code == 0


async def ends_well(client: Client, daemon: Command) -> None:
    """Nobody else got in, and no secret got out."""
    assert (await client.send("GET", "/Users", token="wrong"))[0] == 401
    assert (await daemon.terminate()).code == 0
    assert TOKEN not in daemon.err


# -- Entra ID ------------------------------------------------------------------------------------------------


class Entra:
    """Provisions as Entra ID does, by default or with `?aadOptscim062020` in its tenant URL."""

    def __init__(self, client: Client, *, flagged: bool) -> None:
        self.client = client
        self._flagged = flagged

    async def test_connection(self) -> None:
        """Asks for somebody who can't exist."""
        nobody = 'userName eq "5dce8b5a-1f2c-4d43-9a86-0c8f1f4c9f0e"'
        assert (await self.client.found("/Users", nobody))["totalResults"] == 0

    async def make_user(self, nickname: str) -> str:
        """Looks for them, and makes them."""
        name = f"{nickname}@contoso.example"
        assert (await self.client.found("/Users", f'userName eq "{name}"'))["totalResults"] == 0
        return await self.client.add(
            "/Users",
            schemas=[USER, ENTERPRISE],
            externalId=nickname,
            userName=name,
            active=True,
            displayName=nickname.title(),
            emails=[{"primary": True, "type": "work", "value": name}],
            meta={"resourceType": "User"},
            name={"formatted": nickname.title(), "familyName": "Example", "givenName": nickname},
            **{ENTERPRISE: {"department": "R&D", "manager": "5d1b"}},
        )

    async def make_group(self, name: str, object_id: str, members: Sequence[str]) -> str:
        """Looks for it, makes it without members, and adds these."""
        wanted = f'displayName eq "{name}"'
        found = await self.client.found("/Groups", wanted, excludedAttributes="members")
        assert found["totalResults"] == 0
        group = await self.client.add(
            "/Groups",
            schemas=[GROUP, ADSCIM],
            externalId=object_id,
            displayName=name,
            meta={"resourceType": "Group"},
        )
        await self.add(group, *members)
        return group

    async def add(self, group: str, *ids: str) -> None:
        if self._flagged:
            members: list[Json] = [{"value": id_} for id_ in ids]
            operation = {"op": "add", "path": "members", "value": members}
        else:
            members = [{"$ref": None, "value": id_} for id_ in ids]
            operation = {"op": "Add", "path": "members", "value": members}
        await self.client.patch(f"/Groups/{group}", operation)

    async def remove(self, group: str, *ids: str) -> None:
        if self._flagged:
            removals = [{"op": "remove", "path": f'members[value eq "{id_}"]'} for id_ in ids]
            await self.client.patch(f"/Groups/{group}", *removals)
            return
        members = [{"$ref": None, "value": id_} for id_ in ids]
        await self.client.patch(f"/Groups/{group}", {"op": "Remove", "path": "members", "value": members})

    async def disable(self, user: str) -> None:
        operation: Json = {"op": "Replace", "path": "active", "value": "False"}
        if self._flagged:
            operation = {"op": "replace", "value": {"active": False}}
        await self.client.patch(f"/Users/{user}", operation)


@pytest.mark.parametrize("flagged", [False, True], ids=["default", "aadOptscim062020"])
async def test_entra_moves_one_and_disables_one(live_stage: Stage, flagged: bool) -> None:
    stage = live_stage
    client = pushed_to(stage, {"attributeMapping": {"username": "externalId"}}, SPACES)
    entra = Entra(client, flagged=flagged)
    prefix = "entra.new" if flagged else "entra.old"
    names = ann, bob, cleo = [f"{prefix}.{name}" for name in ("ann", "bob", "cleo")]
    await stage.homeserver.register(*names)
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        await entra.test_connection()
        ids = {name: await entra.make_user(name) for name in names}
        lab = await entra.make_group("Researchers", LABORATORY, list(ids.values()))
        bakery = await entra.make_group("Bakers", "f2b6d1a4-90c8-4a53-8a90-6a7a4ad3a0c5", [])
        for name in names:
            await until(asked_in(stage, name, "lab/general"), f"{name} is asked in", FIRST)
        await stage.join_all(*names)

        # Not all may be there yet: who moves is added there, and not removed here.
        await entra.remove(lab, ids[bob])
        await entra.add(bakery, ids[bob])
        await until(asked_in(stage, bob, "bakery"), "bob is asked into the bakery", FIRST)
        await until(lambda: "still being filled" in daemon.err, "it waits", FIRST)
        assert await stage.membership("lab", bob) == "join"
        await says_ready(stage, "3 users (3 active), 2 groups, 3 memberships")
        await until(is_(stage, bob, "lab", "leave"), "bob moved", FIRST)

        await entra.disable(ids[cleo])
        for room in ("lab", "lab/general"):
            await until(is_(stage, cleo, room, "leave"), f"cleo, who is disabled, leaves {room}", FIRST)
            assert await stage.membership(room, ann) == "join"
        disabled = await client.found("/Users", f'userName eq "{cleo}@contoso.example"')
        assert [one["active"] for one in disabled["Resources"]] == [False]
        assert (await client.send("DELETE", f"/Users/{ids[cleo]}"))[0] == 204
        assert (await client.send("GET", f"/Users/{ids[cleo]}"))[0] == 404
        await ends_well(client, daemon)


# -- Okta ----------------------------------------------------------------------------------------------------


class Okta:
    """Provisions as an integration of Okta's wizard does: PUT for all."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def test_connector(self) -> None:
        answer = await self.client.found("/Users", startIndex=1, count=2)
        assert (answer["totalResults"], answer["Resources"]) == (0, [])

    async def push_user(self, name: str) -> str:
        """Looks for them, and makes them."""
        wanted = f'userName eq "{name}"'
        assert (await self.client.found("/Users", wanted, startIndex=1, count=PAGE))["totalResults"] == 0
        return await self.client.add("/Users", **_profile(name))

    async def push_group(self, name: str, members: Mapping[str, str]) -> str:
        """Makes it empty, then replaces it by one with its members."""
        wanted = f'displayName eq "{name}"'
        assert (await self.client.found("/Groups", wanted, startIndex=1, count=PAGE))["totalResults"] == 0
        group = await self.client.add("/Groups", displayName=name, members=[])
        listed = [{"value": id_, "display": member} for member, id_ in members.items()]
        await self._put(f"/Groups/{group}", {"id": group, "displayName": name, "members": listed}, GROUP)
        return group

    async def put_user(self, id_: str, name: str, **changed: object) -> None:
        await self._put(f"/Users/{id_}", {"id": id_, **_profile(name), **changed}, USER)

    async def _put(self, path: str, body: Json, schema: str) -> None:
        status, answer = await self.client.send("PUT", path, {"schemas": [schema], **body})
        assert status == 200, answer

    async def set_active(self, id_: str, active: bool) -> None:
        await self.client.patch(f"/Users/{id_}", {"op": "replace", "value": {"active": active}})

    async def imported(self, path: str) -> list[Json]:
        """All there are, by pages of a hundred."""
        found: list[Json] = []
        while True:
            page = await self.client.found(path, startIndex=len(found) + 1, count=PAGE)
            found += page["Resources"]
            assert page["itemsPerPage"] == len(page["Resources"]) <= PAGE
            if len(found) >= page["totalResults"]:
                return found


def _profile(name: str) -> Json:
    return {
        "userName": name,
        "name": {"givenName": name.title(), "familyName": "Example"},
        "emails": [{"primary": True, "value": f"{name}@example.com", "type": "work"}],
        "displayName": name.title(),
        "locale": "en-US",
        "externalId": f"00u-{name}",
        "groups": [],
        "password": "1mz050nq",
        "active": True,
    }


async def test_okta_imports_puts_and_deactivates(live_stage: Stage) -> None:
    stage = live_stage
    client = pushed_to(stage)
    okta = Okta(client)
    names = ann, bob, cleo = ["okta.ann", "okta.bob", "okta.cleo"]
    await stage.homeserver.register(*names)
    async with stage.daemon() as daemon:
        await daemon.says("the mirror is current")
        await okta.test_connector()
        ids = {name: await okta.push_user(name) for name in names}
        others = [await okta.push_user(f"okta.other{number}") for number in range(PAGE)]
        await okta.push_group("Researchers", ids)
        imported = await okta.imported("/Users")
        assert [one["id"] for one in imported] == [*ids.values(), *others]
        assert [one["displayName"] for one in await okta.imported("/Groups")] == ["Researchers"]
        assert "1mz050nq" not in str(imported)
        for name in names:
            await until(asked_in(stage, name), f"{name} is asked in", FIRST)
        await stage.join_all(*names)
        await says_ready(stage, "103 users (103 active), 1 groups, 3 memberships")

        await okta.set_active(ids[bob], False)
        await until(is_(stage, bob, "lab", "leave"), "bob is deactivated by PATCH", FIRST)
        await okta.put_user(ids[cleo], cleo, active=False)
        await until(is_(stage, cleo, "lab", "leave"), "cleo is deactivated by PUT", FIRST)
        await okta.put_user(ids[bob], bob, title="Head of Research")
        await until(is_(stage, bob, "lab", "invite"), "bob, who is active again, is asked in", FIRST)
        assert await stage.membership("lab", ann) == "join"
        await ends_well(client, daemon)
