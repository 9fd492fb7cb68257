"""The stand-in for Microsoft Graph is held to what the public documentation says of the real one: by asking
its model directly, and, where it is about the wire, by msal and httpx."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx
import msal
import pytest
import requests
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization

from tests.servers.graph import CLIENT_ID, CLIENT_SECRET, LEAST_ROLES, TENANT_ID, Graph, NewGraph
from tests.servers.graph_delta import Habits
from tests.servers.graph_faults import at
from tests.servers.graph_history import History
from tests.servers.graph_identity import signing_certificate
from tests.servers.graph_model import Answer, GraphModel
from tests.servers.graph_tenant import GROUPS, USERS, Tenant

Json = dict[str, Any]

SCOPES = ["https://graph.microsoft.com/.default"]
USER_DELTA = "/v1.0/users/delta?$select=userPrincipalName,displayName,mail,accountEnabled,userType"
GROUP_DELTA = "/v1.0/groups/delta?$select=displayName,members"


def get(model: GraphModel, target: str, **headers: str) -> Answer:
    return model.answer("GET", target, {name.replace("_", "-"): value for name, value in headers.items()})


def content(model: GraphModel, target: str, **headers: str) -> Json:
    answer = get(model, target, **headers)
    assert answer.status == 200, answer
    return dict(answer.content)


def refused(model: GraphModel, target: str, **headers: str) -> tuple[int, str]:
    answer = get(model, target, **headers)
    return answer.status, answer.content["error"]["code"]


def walk(model: GraphModel, target: str, **headers: str) -> tuple[list[Json], str]:
    """All pages' contents, and the delta link at the end (empty where there is none)."""
    pages = [content(model, target, **headers)]
    while "@odata.nextLink" in pages[-1]:
        assert "@odata.deltaLink" not in pages[-1]
        pages.append(content(model, pages[-1]["@odata.nextLink"], **headers))
    return pages, pages[-1].get("@odata.deltaLink", "")


def items(model: GraphModel, target: str, **headers: str) -> list[Json]:
    return [item for page in walk(model, target, **headers)[0] for item in page["value"]]


@pytest.fixture
def model() -> GraphModel:
    return GraphModel(seed=1)


class TestLists:
    def test_pages_hold_100_objects_unless_asked_for_more(self, model: GraphModel) -> None:
        model.tenant.fill(users=250, groups=0, members=0)
        sizes = [len(page["value"]) for page in walk(model, "/v1.0/users")[0]]
        assert sizes == [100, 100, 50]
        assert [len(page["value"]) for page in walk(model, "/v1.0/users?$top=999")[0]] == [250]

    def test_pages_together_are_all_each_once(self, model: GraphModel) -> None:
        model.tenant.fill(users=25, groups=0, members=0)
        found = [item["id"] for item in items(model, "/v1.0/users?$top=7&$select=id")]
        assert found == [each.id for each in model.tenant.all(USERS)]

    @pytest.mark.parametrize("top", ["1000", "0", "-1", "all"])
    def test_other_sizes_are_refused(self, model: GraphModel, top: str) -> None:
        assert refused(model, f"/v1.0/users?$top={top}")[0] == 400

    def test_only_what_is_selected_is_given_and_what_is_not_set_is_null(self, model: GraphModel) -> None:
        ann = model.tenant.add_user("ann")
        assert items(model, "/v1.0/users?$select=mail,displayName") == [
            {"id": ann, "mail": None, "displayName": "Ann"}
        ]
        assert "accountEnabled" not in items(model, "/v1.0/users")[0]

    @pytest.mark.parametrize(
        "names", ["shoeSize", "mail,", "onPremisesExtensionAttributes/extensionAttribute1"]
    )
    def test_unknown_properties_are_refused(self, model: GraphModel, names: str) -> None:
        assert refused(model, f"/v1.0/users?$select={names}") == (400, "BadRequest")
        assert refused(model, f"/v1.0/users/delta?$select={names}") == (400, "BadRequest")
        assert len(model.refusals) == 2

    def test_members_are_of_all_kinds(self, model: GraphModel) -> None:
        ann, printer = model.tenant.add_user("ann"), model.tenant.add_other("device")
        inner = model.tenant.add_group("Inner", members=[ann])
        outer = model.tenant.add_group("Outer", members=[inner, printer])
        found = items(model, f"/v1.0/groups/{outer}/members?$select=id")
        assert found == [
            {"@odata.type": "#microsoft.graph.group", "id": inner},
            {"@odata.type": "#microsoft.graph.device", "id": printer},
        ]
        found = items(model, f"/v1.0/groups/{outer}/transitiveMembers/microsoft.graph.user?$select=mail")
        assert found == [{"@odata.type": "#microsoft.graph.user", "id": ann, "mail": None}]

    def test_expanding_members_stops_at_20(self, model: GraphModel) -> None:
        model.tenant.fill(users=30, groups=1, members=30)
        assert len(items(model, "/v1.0/groups?$expand=members")[0]["members"]) == 20

    def test_deleted_ones_are_not_there(self, model: GraphModel) -> None:
        ann = model.tenant.add_user("ann")
        model.tenant.delete(ann)
        assert items(model, "/v1.0/users") == []
        assert refused(model, f"/v1.0/users/{ann}") == (404, "Request_ResourceNotFound")

    def test_a_user_is_found_by_id_and_by_name(self, model: GraphModel) -> None:
        ann = model.tenant.add_user("ann")
        assert content(model, f"/v1.0/users/{ann}?$select=displayName")["displayName"] == "Ann"
        assert content(model, "/v1.0/users/ANN@example.com")["id"] == ann

    def test_counting_needs_eventual_consistency(self, model: GraphModel) -> None:
        model.tenant.fill(users=3, groups=2, members=0)
        assert get(model, "/v1.0/users/$count", ConsistencyLevel="eventual").content == "3"
        assert refused(model, "/v1.0/users/$count")[0] == 400
        assert content(model, "/v1.0/groups?$count=true", ConsistencyLevel="eventual")["@odata.count"] == 2


class TestFilters:
    @pytest.fixture
    def people(self) -> GraphModel:
        model = GraphModel()
        model.tenant.add_user("ann", department="Sales", accountEnabled=True)
        model.tenant.add_user("bob", department="sales", accountEnabled=False)
        model.tenant.add_user("cid", department="O'Hara, Lab", companyName="Example")
        model.tenant.add_guest("dan@elsewhere.example")
        return model

    @staticmethod
    def _names(model: GraphModel, text: str, **headers: str) -> list[str]:
        more = "&$count=true" if headers else ""
        target = f"/v1.0/users?$select=userPrincipalName&$filter={quote(text)}{more}"
        return [item["userPrincipalName"][:3] for item in items(model, target, **headers)]

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("department eq 'Sales'", ["ann", "bob"]),
            ("department eq 'Sales' and accountEnabled eq true", ["ann"]),
            ("userType eq 'Guest' or department eq 'O''Hara, Lab'", ["cid", "dan"]),
            ("startswith(displayName,'b') or startsWith(displayName, 'C')", ["bob", "cid"]),
            ("userPrincipalName in ('ann@example.com', 'cid@example.com')", ["ann", "cid"]),
            ("(accountEnabled eq false or userType eq 'Guest') and department eq 'sales'", ["bob"]),
        ],
    )
    def test_plain_ones(self, people: GraphModel, text: str, names: list[str]) -> None:
        assert self._names(people, text) == names

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("department ne 'Sales'", ["cid", "dan"]),
            ("not(userType eq 'Guest')", ["ann", "bob", "cid"]),
            ("endswith(mail,'@elsewhere.example')", ["dan"]),
            ("companyName eq 'Example'", ["cid"]),
            ("department eq null", ["dan"]),
        ],
    )
    def test_advanced_ones_need_eventual_consistency(
        self, people: GraphModel, text: str, names: list[str]
    ) -> None:
        assert refused(people, f"/v1.0/users?$filter={quote(text)}") == (400, "Request_UnsupportedQuery")
        assert self._names(people, text, ConsistencyLevel="eventual") == names

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "shoeSize eq 4",
            "mail",
            "mail eq",
            "mail eq x",
            "mail eq 'a",
            "mail lt 'a'",
            "mail eq 'a' 'b'",
            "(mail",
        ],
    )
    def test_others_are_refused(self, people: GraphModel, text: str) -> None:
        assert refused(people, f"/v1.0/users?$filter={quote(text)}")[0] == 400

    def test_any_over_a_list(self) -> None:
        model = GraphModel()
        model.tenant.add_group("Plain")
        team = model.tenant.add_group("Team", groupTypes=["Unified"])
        query = quote("groupTypes/any(c:c eq 'Unified')")
        assert [item["id"] for item in items(model, f"/v1.0/groups?$filter={query}")] == [team]


class TestDelta:
    def test_the_first_round_gives_all_that_is_set(self, model: GraphModel) -> None:
        ann = model.tenant.add_user("ann")
        pages, link = walk(model, USER_DELTA)
        assert pages[0]["value"] == [
            {
                "id": ann,
                "userPrincipalName": "ann@example.com",
                "displayName": "Ann",
                "accountEnabled": True,
                "userType": "Member",
            }
        ]
        assert link.startswith("https://graph.microsoft.com/v1.0/users/delta?$deltatoken=")

    def test_nothing_changed_is_an_empty_page_with_a_delta_link(self, model: GraphModel) -> None:
        model.tenant.add_user("ann")
        _, link = walk(model, USER_DELTA)
        pages, link = walk(model, link)
        assert [page["value"] for page in pages] == [[]]
        assert link

    def test_a_change_brings_only_what_changed_and_null_where_it_was_taken_away(
        self, model: GraphModel
    ) -> None:
        ann = model.tenant.add_user("ann", mail="ann@example.com")
        _, link = walk(model, USER_DELTA)
        model.tenant.change(ann, mail=None)
        model.tenant.change(ann, jobTitle="Boss")
        assert items(model, link) == [{"id": ann, "mail": None}]

    def test_all_selected_properties_come_too_unless_return_minimal(self, model: GraphModel) -> None:
        ann = model.tenant.add_user("ann")
        _, link = walk(model, "/v1.0/users/delta?$select=displayName,mail,userType")
        model.tenant.change(ann, displayName="Ann B.")
        model.deltas.habits = Habits(items="all")
        assert items(model, link) == [{"id": ann, "displayName": "Ann B.", "userType": "Member"}]
        assert items(model, link, Prefer="return=minimal") == [{"id": ann, "displayName": "Ann B."}]

    def test_what_is_not_selected_is_not_tracked(self, model: GraphModel) -> None:
        ann = model.tenant.add_user("ann")
        group = model.tenant.add_group("Staff")
        _, users = walk(model, USER_DELTA)
        _, groups = walk(model, "/v1.0/groups/delta?$select=displayName")
        model.tenant.change(ann, jobTitle="Boss")
        model.tenant.join(group, ann)
        assert items(model, users) == items(model, groups) == []

    def test_removed_for_good_or_not(self, model: GraphModel) -> None:
        ann, bob = model.tenant.add_user("ann"), model.tenant.add_user("bob")
        _, link = walk(model, USER_DELTA)
        model.tenant.delete(ann)
        model.tenant.delete(bob, forever=True)
        pages, link = walk(model, link)
        assert pages[0]["value"] == [
            {"id": ann, "@removed": {"reason": "changed"}},
            {"id": bob, "@removed": {"reason": "deleted"}},
        ]
        model.tenant.purge(ann)
        assert items(model, link) == [{"id": ann, "@removed": {"reason": "deleted"}}]

    def test_a_restored_user_comes_whole_and_is_in_the_groups_again(self, model: GraphModel) -> None:
        ann = model.tenant.add_user("ann")
        staff = model.tenant.add_group("Staff", members=[ann])
        _, groups = walk(model, GROUP_DELTA)
        model.tenant.delete(ann)
        member = {"@odata.type": "#microsoft.graph.user", "id": ann}
        pages, groups = walk(model, groups)
        assert pages[0]["value"] == [
            {"id": staff, "members@delta": [{**member, "@removed": {"reason": "deleted"}}]}
        ]
        _, users = walk(model, USER_DELTA)
        model.tenant.restore(ann)
        assert items(model, groups) == [{"id": staff, "members@delta": [member]}]
        assert items(model, users)[0]["displayName"] == "Ann"

    def test_a_restored_group_brings_its_members(self, model: GraphModel) -> None:
        ann, bob = model.tenant.add_user("ann"), model.tenant.add_user("bob")
        team = model.tenant.add_group("Team", members=[ann, bob], groupTypes=["Unified"])
        model.tenant.delete(team)
        _, link = walk(model, GROUP_DELTA)
        model.tenant.delete(bob)
        assert [item for item in items(model, link) if "@removed" not in item] == []
        model.tenant.restore(team)
        last = items(model, link)[-1]
        assert last["displayName"] == "Team"
        assert {"@odata.type": "#microsoft.graph.user", "id": ann} in last["members@delta"]

    def test_members_of_a_large_group_come_in_parts(self, model: GraphModel) -> None:
        model.tenant.fill(users=25, groups=1, members=25)
        model.deltas.habits = Habits(members=10)
        pages, _ = walk(model, GROUP_DELTA)
        assert [len(page["value"][0]["members@delta"]) for page in pages] == [10, 10, 5]
        assert {page["value"][0]["displayName"] for page in pages} == {"Group 0"}
        ids = {member["id"] for page in pages for member in page["value"][0]["members@delta"]}
        assert len(ids) == 25

    def test_pages_are_as_large_as_asked_for(self, model: GraphModel) -> None:
        model.tenant.fill(users=2000, groups=0, members=0)
        assert [len(page["value"]) for page in walk(model, USER_DELTA)[0]] == [100] * 20
        answer = get(model, USER_DELTA, Prefer="odata.maxpagesize=5000")
        assert len(answer.content["value"]) == 999
        assert answer.headers["Preference-Applied"] == "odata.maxpagesize=999"

    def test_a_page_can_be_asked_for_again(self, model: GraphModel) -> None:
        model.tenant.fill(users=30, groups=3, members=20)
        model.deltas.habits = Habits(page=2, members=7)
        link = content(model, GROUP_DELTA)["@odata.nextLink"]
        assert content(model, link) == content(model, link)

    def test_changes_during_a_round_are_in_the_next_one(self, model: GraphModel) -> None:
        model.tenant.fill(users=4, groups=0, members=0)
        first, *_, last = model.tenant.all(USERS)
        page = content(model, USER_DELTA, Prefer="odata.maxpagesize=2")
        model.tenant.change(first.id, displayName="New")
        model.tenant.delete(last.id)
        page = content(model, page["@odata.nextLink"], Prefer="odata.maxpagesize=2")
        assert page["value"][-1] == {"id": last.id, "@removed": {"reason": "changed"}}
        changed = [item["id"] for item in items(model, page["@odata.deltaLink"])]
        assert changed == [first.id, last.id]

    def test_from_now_on(self, model: GraphModel) -> None:
        model.tenant.add_user("ann")
        page = content(model, f"{USER_DELTA}&$deltatoken=latest")
        assert page["value"] == []
        bob = model.tenant.add_user("bob")
        assert [item["id"] for item in items(model, page["@odata.deltaLink"])] == [bob]

    def test_some_objects_only(self, model: GraphModel) -> None:
        one, two, three = (model.tenant.add_group(f"Group {number}") for number in range(3))
        query = quote(f"id eq '{one}' or id eq '{three}'")
        pages, link = walk(model, f"{GROUP_DELTA}&$filter={query}")
        assert [item["id"] for page in pages for item in page["value"]] == [one, three]
        for each in (one, two):
            model.tenant.change(each, displayName="New")
        assert [item["id"] for item in items(model, link)] == [one]

    def test_not_more_than_50_objects(self, model: GraphModel) -> None:
        def query(count: int) -> str:
            return quote(" or ".join(f"id eq '{model.tenant.guid()}'" for _ in range(count)))

        assert content(model, f"{GROUP_DELTA}&$filter={query(50)}")["value"] == []
        assert refused(model, f"{GROUP_DELTA}&$filter={query(51)}")[0] == 400

    @pytest.mark.parametrize(
        "query",
        [
            "$top=5",
            "$orderby=displayName",
            "$expand=manager",
            "$filter=accountEnabled eq true",
            "$search=x",
            "$count=true",
        ],
    )
    def test_other_queries_are_refused(self, model: GraphModel, query: str) -> None:
        assert refused(model, f"/v1.0/users/delta?{query}") == (400, "Request_UnsupportedQuery")

    def test_tokens_stand_alone_and_belong_to_their_collection(self, model: GraphModel) -> None:
        _, link = walk(model, USER_DELTA)
        assert refused(model, f"{link}&$select=mail")[0] == 400
        assert refused(model, link.replace("/users/", "/groups/"))[0] == 400
        assert refused(model, f"{link}x")[0] == 400

    def test_an_expired_token_is_gone_and_says_where_to_begin(self, model: GraphModel) -> None:
        _, link = walk(model, USER_DELTA)
        _, groups = walk(model, GROUP_DELTA)
        model.deltas.expire(USERS)
        answer = get(model, link)
        assert (answer.status, answer.content["error"]["code"]) == (410, "syncStateNotFound")
        assert answer.headers["Location"] == "https://graph.microsoft.com/v1.0/users/delta?$deltatoken="
        assert content(model, answer.headers["Location"])["@odata.deltaLink"]
        assert content(model, groups)["value"] == []

    def test_tokens_are_good_for_seven_days(self, model: GraphModel) -> None:
        _, link = walk(model, USER_DELTA)
        model.clock.advance(timedelta(days=7))
        assert content(model, link)
        model.clock.advance(timedelta(seconds=1))
        assert refused(model, link) == (410, "syncStateNotFound")

    def test_the_same_seed_says_the_same(self) -> None:
        def told(seed: int) -> list[Json]:
            model = GraphModel(seed)
            model.deltas.habits = Habits.wild(random.Random(seed))
            history = History(model.tenant, seed)
            pages, link = walk(model, GROUP_DELTA)
            for _ in range(20):
                history.step()
            return pages + walk(model, link)[0]

        assert told(3) == told(3)
        assert told(3) != told(4)


@dataclass(slots=True)
class Replica:
    """What a client that follows the documentation knows after all that it was told."""

    users: dict[str, Json] = field(default_factory=dict)
    groups: dict[str, Json] = field(default_factory=dict)
    members: dict[str, set[str]] = field(default_factory=dict)

    def take(self, collection: str, pages: Sequence[Json]) -> None:
        known = self.users if collection == USERS else self.groups
        for item in (dict(item) for page in pages for item in page["value"]):
            if "@removed" in item:
                known.pop(item["id"], None)
                self.members.pop(item["id"], None)
                continue
            for member in item.pop("members@delta", []):
                mine = self.members.setdefault(item["id"], set())
                (mine.discard if "@removed" in member else mine.add)(member["id"])
            known[item["id"]] = {**known.get(item["id"], {}), **item}

    def seen(self) -> tuple[dict[str, Json], dict[str, Json], dict[str, set[str]]]:
        """Without what is null, or empty."""
        users, groups = (
            {key: {k: v for k, v in item.items() if v is not None} for key, item in known.items()}
            for known in (self.users, self.groups)
        )
        return users, groups, {group: mine for group, mine in self.members.items() if mine}


def held(tenant: Tenant) -> tuple[dict[str, Json], dict[str, Json], dict[str, set[str]]]:
    """The same of the tenant itself."""
    names = USER_DELTA.partition("$select=")[2].split(",")

    def values(properties: Mapping[str, object], names: Sequence[str]) -> Json:
        return {name: properties[name] for name in names if properties.get(name) is not None}

    users = {each.id: {"id": each.id, **values(each.properties, names)} for each in tenant.all(USERS)}
    groups = {
        each.id: {"id": each.id, **values(each.properties, ["displayName"])} for each in tenant.all(GROUPS)
    }
    return users, groups, {each.id: set(each.members) for each in tenant.all(GROUPS) if each.members}


@pytest.mark.parametrize("seed", range(200))
def test_any_history_ends_in_the_state_that_is_there(seed: int) -> None:
    chance = random.Random(seed)
    model = GraphModel(seed)
    model.deltas.habits = Habits.wild(chance)
    history = History(model.tenant, seed)
    for _ in range(chance.randint(0, 25)):
        history.step()
    replica = Replica()
    links = {USERS: USER_DELTA, GROUPS: GROUP_DELTA}
    for _ in range(chance.randint(1, 6)):
        for collection in chance.sample([USERS, GROUPS], 2):
            pages = [content(model, links[collection])]
            while "@odata.nextLink" in pages[-1]:
                if chance.random() < 0.3:
                    history.step()
                pages.append(content(model, pages[-1]["@odata.nextLink"]))
            replica.take(collection, pages)
            links[collection] = pages[-1]["@odata.deltaLink"]
        for _ in range(chance.randint(0, 8)):
            history.step()
    model.deltas.habits.lag = 0
    for collection, link in links.items():
        replica.take(collection, walk(model, link)[0])
    assert replica.seen() == held(model.tenant)


class TestPermissions:
    @pytest.mark.parametrize(
        ("target", "role"),
        [
            ("/v1.0/users", "User.Read.All"),
            ("/v1.0/users/delta", "User.Read.All"),
            ("/v1.0/groups", "GroupMember.Read.All"),
            ("/v1.0/groups/delta", "GroupMember.Read.All"),
        ],
    )
    def test_least_ones(self, model: GraphModel, target: str, role: str) -> None:
        denied = model.answer("GET", target, roles=LEAST_ROLES - {role})
        assert denied.status == 403
        assert denied.content["error"]["code"] == "Authorization_RequestDenied"
        for enough in (role, "Directory.Read.All"):
            assert model.answer("GET", target, roles={enough}).status == 200

    def test_members_of_a_kind_that_may_not_be_read_are_only_told_of(self, model: GraphModel) -> None:
        ann = model.tenant.add_user("ann")
        staff = model.tenant.add_group("Staff", members=[ann])
        target = f"/v1.0/groups/{staff}/members?$select=id,displayName"
        answer = model.answer("GET", target, roles={"GroupMember.Read.All"})
        assert answer.content["value"] == [
            {"@odata.type": "#microsoft.graph.user", "id": ann, "displayName": None}
        ]

    def test_the_name_of_the_organisation_needs_a_permission_of_its_own(self, model: GraphModel) -> None:
        every = model.answer("GET", "/v1.0/organization", roles={"Organization.Read.All"}).content["value"][0]
        assert (every["displayName"], every["countryLetterCode"]) == ("Example", "DE")
        assert model.answer("GET", "/v1.0/organization", roles=LEAST_ROLES).status == 403

    def test_credentials_need_a_permission_of_their_own(self, model: GraphModel) -> None:
        target = "/v1.0/applications(appId='x')"
        assert model.answer("GET", target, roles=LEAST_ROLES).status == 403
        assert model.answer("GET", target, roles={"Application.Read.All"}).status == 404


def test_a_large_tenant_is_there_quickly_and_says_how_many_pages_it_takes() -> None:
    model = GraphModel()
    model.tenant.fill(users=20_000, groups=1_000, members=50, nested=100)
    users, groups = model.least_pages()
    assert users == 21
    found, _ = walk(model, GROUP_DELTA, Prefer="odata.maxpagesize=999")
    assert len(found) == groups
    assert sum(len(item["members@delta"]) for page in found for item in page["value"]) == 50_100


# The wire


@pytest.fixture
async def graph(new_graph: NewGraph) -> Graph:
    return await new_graph()


@asynccontextmanager
async def calling(graph: Graph, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a token; None: one that the stand-in gives it."""
    headers = {"Authorization": f"Bearer {token or await issued(graph)}"}
    trust = ssl.create_default_context(cafile=graph.ca)
    async with httpx.AsyncClient(base_url=graph.base_url + "v1.0", verify=trust, headers=headers) as client:
        yield client


def application(graph: Graph, credential: object = CLIENT_SECRET, **other: object) -> Any:
    session = requests.Session()
    session.verify = str(graph.ca)
    session.trust_env = False
    given: dict[str, object] = {
        "client_id": CLIENT_ID,
        "authority": f"{graph.authority}/{TENANT_ID}",
        "client_credential": credential,
        "instance_discovery": False,
        "http_client": session,
    }
    return msal.ConfidentialClientApplication(**{**given, **other})


async def acquired(graph: Graph, credential: object = CLIENT_SECRET, **other: object) -> Json:
    """What msal answers."""

    def acquire() -> Json:
        return dict(application(graph, credential, **other).acquire_token_for_client(SCOPES))

    return await asyncio.to_thread(acquire)


async def issued(graph: Graph) -> str:
    return str((await acquired(graph))["access_token"])


class TestTokens:
    async def test_msal_gets_one_with_a_secret(self, graph: Graph) -> None:
        answer = await acquired(graph)
        assert answer["expires_in"] == 3599
        payload = answer["access_token"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert set(claims["roles"]) == LEAST_ROLES
        assert (claims["appid"], claims["tid"]) == (CLIENT_ID, TENANT_ID)
        assert graph.requests == {"metadata": 1, "token": 1}

    @pytest.mark.parametrize("by", ["thumbprint", "public_certificate"])
    async def test_msal_gets_one_with_a_certificate(self, graph: Graph, by: str) -> None:
        certificate, key = signing_certificate()
        shown = {
            "thumbprint": certificate.fingerprint(hashes.SHA1()).hex(),
            "public_certificate": certificate.public_bytes(serialization.Encoding.PEM).decode(),
        }
        credential = {"private_key": key, by: shown[by]}
        assert (await acquired(graph, credential))["error_codes"] == [700027]
        graph.app.certificates.append(certificate)
        assert "access_token" in await acquired(graph, credential)
        _, another_key = signing_certificate()
        answer = await acquired(graph, {**credential, "private_key": another_key})
        assert answer["error_codes"] == [700027]

    async def test_msal_gets_one_with_a_token_of_another_provider(self, graph: Graph) -> None:
        graph.app.federated.add("from.the.cluster")
        assert "access_token" in await acquired(graph, {"client_assertion": lambda: "from.the.cluster"})
        assert "access_token" not in await acquired(graph, {"client_assertion": lambda: "from.somebody.else"})

    async def test_why_msal_gets_none(self, graph: Graph) -> None:
        answer = await acquired(graph, "wrong")
        assert answer["error"] == "invalid_client"
        assert answer["error_description"].startswith("AADSTS7000215: Invalid client secret provided.")
        graph.app.secrets["old"] = datetime.now(UTC) - timedelta(days=1)
        assert (await acquired(graph, "old"))["error_codes"] == [7000222]
        answer = await acquired(graph, client_id=graph.tenant.guid())
        assert (answer["error"], answer["error_codes"]) == ("unauthorized_client", [700016])

    async def test_an_unknown_tenant(self, graph: Graph) -> None:
        with pytest.raises(ValueError, match="double check your tenant name"):
            await acquired(graph, authority=f"{graph.authority}/nobody.example")
        async with calling(graph) as client:
            url = f"{graph.url}/nobody.example/v2.0/.well-known/openid-configuration"
            answer = await client.get(url)
            assert (answer.status_code, answer.json()["error_codes"]) == (400, [90002])

    async def test_a_machine_with_a_managed_identity(self, graph: Graph) -> None:
        graph.identity.managed = CLIENT_ID
        async with calling(graph) as client:
            url = f"{graph.url}/metadata/identity/oauth2/token"
            query = {"api-version": "2018-02-01", "resource": "https://graph.microsoft.com"}
            answer = await client.get(url, params=query, headers={"Metadata": "true"})
            assert answer.json()["token_type"] == "Bearer"
            assert (await client.get(url, params=query)).status_code == 400
        async with calling(graph, answer.json()["access_token"]) as client:
            assert (await client.get("/users")).status_code == 200

    async def test_without_a_good_token_nothing_is_told(self, graph: Graph) -> None:
        async with calling(graph, "made.up.token") as client:
            answer = await client.get("/users")
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "InvalidAuthenticationToken"
            assert answer.headers["WWW-Authenticate"].startswith('Bearer realm=""')
        async with calling(graph) as client:
            assert (await client.get("/users")).status_code == 200
            graph.clock.advance(timedelta(hours=1))
            answer = await client.get("/users")
            assert "expired" in answer.json()["error"]["message"]

    async def test_a_challenge_is_met_by_asking_with_its_claims(self, graph: Graph) -> None:
        token = await issued(graph)
        graph.identity.challenge()
        async with calling(graph, token) as client:
            header = (await client.get("/users")).headers["WWW-Authenticate"]
        assert 'error="insufficient_claims"' in header
        claims = base64.b64decode(header.partition('claims="')[2].rstrip('"')).decode()
        async with calling(graph) as client:
            assert (await client.get("/users")).status_code == 401
        app = await asyncio.to_thread(application, graph)
        answer = await asyncio.to_thread(app.acquire_token_for_client, SCOPES, claims_challenge=claims)
        async with calling(graph, answer["access_token"]) as client:
            assert (await client.get("/users")).status_code == 200


class TestBatches:
    async def test_each_has_an_answer_of_its_own(self, graph: Graph) -> None:
        ann = graph.tenant.add_user("ann")
        asked = [
            {"id": "1", "method": "GET", "url": f"/users/{ann}?$select=id"},
            {"id": "2", "method": "GET", "url": f"/groups/{ann}/members"},
        ]
        async with calling(graph) as client:
            answer = await client.post("/$batch", json={"requests": asked})
        by_id = {each["id"]: each for each in answer.json()["responses"]}
        assert {each: by_id[each]["status"] for each in by_id} == {"1": 200, "2": 404}
        assert by_id["1"]["body"]["id"] == ann
        assert graph.requests["$batch"] == 1
        assert graph.in_batches == {"users/*": 1, "groups/*/members": 1}

    async def test_20_at_once(self, graph: Graph) -> None:
        asked = [{"id": str(number), "method": "GET", "url": "/users"} for number in range(21)]
        async with calling(graph) as client:
            assert (await client.post("/$batch", json={"requests": asked[:20]})).status_code == 200
            assert (await client.post("/$batch", json={"requests": asked})).status_code == 400
        graph.model.refusals.clear()

    async def test_single_ones_are_throttled(self, graph: Graph) -> None:
        graph.faults.throttle(lambda asked: asked.in_batch, times=1, retry_after=7)
        asked = [{"id": str(number), "method": "GET", "url": "/users"} for number in range(3)]
        async with calling(graph) as client:
            answers = (await client.post("/$batch", json={"requests": asked})).json()["responses"]
        assert sorted(each["status"] for each in answers) == [200, 200, 429]
        assert [each["headers"]["Retry-After"] for each in answers if each["status"] == 429] == ["7"]


class TestFaults:
    async def test_throttling_in_seconds_and_as_a_date(self, graph: Graph) -> None:
        graph.faults.throttle(at("users"), retry_after=3)
        graph.faults.throttle(at("users"), retry_after=60, as_date=True, status=503)
        async with calling(graph) as client:
            first, second, third = [await client.get("/users") for _ in range(3)]
        assert (first.status_code, first.headers["Retry-After"]) == (429, "3")
        assert second.status_code == 503
        assert parsedate_to_datetime(second.headers["Retry-After"]) > datetime.now(UTC)
        assert third.status_code == 200

    async def test_cut_and_lost_answers(self, graph: Graph) -> None:
        graph.tenant.fill(users=500, groups=0, members=0)
        graph.faults.cut(at("users"))
        graph.faults.lose(at("users"))
        async with calling(graph) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.get("/users?$top=999")
            with pytest.raises(httpx.TransportError):
                await client.get("/users?$top=999")
            assert len((await client.get("/users?$top=999")).json()["value"]) == 500
        assert [each.status for each in graph.asked if each.kind == "users"] == [None, None, 200]

    async def test_an_answer_that_is_held(self, graph: Graph) -> None:
        fault = graph.faults.hold(at("users"))
        async with calling(graph) as client:
            asking = asyncio.create_task(client.get("/users"))
            await fault.reached.wait()
            assert not asking.done()
            fault.release.set()
            assert (await asking).status_code == 200

    async def test_spoilt_pages(self, graph: Graph) -> None:
        graph.tenant.fill(users=3, groups=0, members=0)
        astray = f"{graph.elsewhere}/v1.0/users?$skiptoken=x"
        graph.faults.link(astray, at("users"))
        graph.faults.no_value(at("users"))
        graph.faults.no_value(at("users"), instead={})
        graph.faults.dead_end(at("users"))
        graph.faults.twice(at("users"))
        async with calling(graph) as client:
            pages = [(await client.get("/users?$top=2")).json() for _ in range(6)]
            await client.get(astray)
        assert pages[0]["@odata.nextLink"] == astray
        assert "value" not in pages[1]
        assert pages[2]["value"] == {}
        assert "@odata.nextLink" not in pages[3]
        assert len(pages[4]["value"]) == 4
        assert len(pages[5]["value"]) == 2
        assert [each.authorized for each in graph.strays] == [True]
        graph.model.refusals.clear()

    async def test_pages_of_a_proxy_redirects_and_ended_tokens(self, graph: Graph) -> None:
        graph.faults.html(at("users"))
        graph.faults.redirect("https://localhost/elsewhere", at("users"))
        graph.faults.expire(at("users"))
        async with calling(graph) as client:
            answers = [await client.get("/users") for _ in range(4)]
        assert answers[0].headers["Content-Type"].startswith("text/html")
        assert [each.status_code for each in answers] == [200, 302, 401, 401]
        assert "WWW-Authenticate" in answers[2].headers

    async def test_a_mix_lets_through_who_tries_again(self, graph: Graph) -> None:
        graph.faults.mix(seed=5, rate=0.9, in_a_row=2)
        outcomes = []
        async with calling(graph) as client:
            for _ in range(30):
                try:
                    answer = await client.get("/users")
                    outcomes.append(answer.headers["Content-Type"].startswith("application/json;odata"))
                    outcomes[-1] &= answer.status_code == 200
                except httpx.TransportError:
                    outcomes.append(False)
        assert False in outcomes
        assert all(any(outcomes[begin : begin + 3]) for begin in range(28))


class Subscriber:
    """Takes notifications, and answers validations as it should unless told otherwise."""

    def __init__(self) -> None:
        self.got: list[Json] = []
        self.echoes = True
        self.status = 202

    async def handle(self, request: web.Request) -> web.Response:
        token = request.query.get("validationToken")
        if token is not None:
            return web.Response(text=token if self.echoes else "no", content_type="text/plain")
        self.got += (await request.json())["value"]
        return web.Response(status=self.status)


@pytest.fixture
async def subscriber(graph: Graph) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", subscriber.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    graph.routes["https://aim.example.com"] = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield subscriber
    await runner.cleanup()


def wanted(resource: str = "users", **other: object) -> Json:
    return {
        "changeType": "updated,deleted",
        "notificationUrl": "https://aim.example.com/graph",
        "lifecycleNotificationUrl": "https://aim.example.com/graph",
        "resource": resource,
        "expirationDateTime": (datetime.now(UTC) + timedelta(days=29)).isoformat(),
        "clientState": "s3cret",
        **other,
    }


class TestSubscriptions:
    async def test_changes_are_told(self, graph: Graph, subscriber: Subscriber) -> None:
        async with calling(graph) as client:
            created = (await client.post("/subscriptions", json=wanted())).json()
        ann = graph.tenant.add_user("ann")
        graph.tenant.add_group("Staff")
        assert [each.status for each in await graph.notify()] == [202]
        assert subscriber.got[0]["subscriptionId"] == created["id"]
        assert subscriber.got[0]["clientState"] == "s3cret"
        assert (subscriber.got[0]["changeType"], subscriber.got[0]["resource"]) == ("updated", f"Users/{ann}")
        graph.tenant.delete(ann, forever=True)
        await graph.notify()
        assert subscriber.got[1]["changeType"] == "deleted"

    async def test_what_was_not_taken_is_told_again(self, graph: Graph, subscriber: Subscriber) -> None:
        async with calling(graph) as client:
            await client.post("/subscriptions", json=wanted())
        graph.tenant.add_user("ann")
        subscriber.status = 500
        await graph.notify()
        subscriber.status = 202
        await graph.notify()
        assert await graph.notify() == []
        assert len(subscriber.got) == 2

    async def test_the_address_has_to_be_validated(self, graph: Graph, subscriber: Subscriber) -> None:
        subscriber.echoes = False
        async with calling(graph) as client:
            answer = await client.post("/subscriptions", json=wanted())
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "ValidationError")
        assert graph.model.subscriptions.all() == []
        graph.model.refusals.clear()

    @pytest.mark.parametrize(
        "wrong",
        [
            {"changeType": "created,updated"},
            {"notificationUrl": "http://aim.example.com/graph"},
            {"resource": "devices"},
            {"expirationDateTime": "2020-01-01T00:00:00Z"},
            {"expirationDateTime": "2999-01-01T00:00:00Z"},
            {"clientState": "x" * 129},
            {"colour": "blue"},
        ],
        ids=lambda wrong: next(iter(wrong)),
    )
    async def test_what_is_refused(self, graph: Graph, subscriber: Subscriber, wrong: Json) -> None:
        async with calling(graph) as client:
            assert (await client.post("/subscriptions", json=wanted(**wrong))).status_code == 400
        graph.model.refusals.clear()

    async def test_groups_need_more_than_reading_members(self, graph: Graph, subscriber: Subscriber) -> None:
        async with calling(graph) as client:
            assert (await client.post("/subscriptions", json=wanted("groups"))).status_code == 403
        graph.app.roles.add("Group.Read.All")
        async with calling(graph) as client:
            assert (await client.post("/subscriptions", json=wanted("groups"))).status_code == 201

    async def test_renewed_ended_and_removed(self, graph: Graph, subscriber: Subscriber) -> None:
        async with calling(graph) as client:
            first = (await client.post("/subscriptions", json=wanted())).json()["id"]
            second = (await client.post("/subscriptions", json=wanted())).json()["id"]
            end = (datetime.now(UTC) + timedelta(minutes=50)).isoformat()
            answer = await client.patch(f"/subscriptions/{first}", json={"expirationDateTime": end})
            assert answer.status_code == 200
            graph.model.subscriptions.tell(second, "subscriptionRemoved")
            await graph.notify()
            assert subscriber.got[-1]["lifecycleEvent"] == "subscriptionRemoved"
            assert (await client.delete(f"/subscriptions/{second}")).status_code == 404
            assert [each["id"] for each in (await client.get("/subscriptions")).json()["value"]] == [first]
            graph.clock.advance(timedelta(minutes=51))
            graph.tenant.add_user("ann")
            assert await graph.notify() == []
