"""What the store refuses is the client's to mend: 400 with the keyword that says what, on every way there."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from aim.ports.scim import (
    ScimInvalidCursor,
    ScimPage,
    ScimQuery,
    ScimResource,
    ScimTooComplex,
    ScimTooLong,
)
from tests.unit.scim_client import Service, a_group, a_user, ops, service
from tests.unit.scim_store import MemoryScim

BULK = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
SEARCH = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
LONG = ops({"op": "replace", "path": "displayName", "value": "x"})


class Refusing(MemoryScim):
    """Refuses whatever it can, once `error` is there."""

    error: Exception | None = None

    def _refuse(self) -> None:
        if self.error is not None:
            raise self.error

    async def create(self, resource: ScimResource, members: Sequence[str] = ()) -> ScimResource:
        self._refuse()
        return await super().create(resource, members)

    async def replace(
        self,
        resource: ScimResource,
        members: Sequence[str] | None = None,
        expected: int | None = None,
        *,
        add: Collection[str] = (),
        remove: Collection[str] = (),
    ) -> ScimResource | None:
        self._refuse()
        return await super().replace(resource, members, expected, add=add, remove=remove)

    async def search(self, query: ScimQuery) -> ScimPage:
        self._refuse()
        return await super().search(query)


async def _refused(scim: Service, method: str, path: str, body: object = None) -> tuple[int, str, str]:
    """Status, keyword and text of the answer."""
    answer = await scim.call(method, path, body)
    said = answer.json()
    if path == "/Bulk":
        [operation] = said["Operations"]
        said = operation["response"]
    return int(said["status"]), said["scimType"], said["detail"]


@pytest.mark.parametrize("kind", ["Users", "Groups"])
async def test_what_is_too_long_to_be_searched_by(kind: str) -> None:
    store = Refusing()
    scim = service(store)
    body = a_user("ann") if kind == "Users" else a_group("staff")
    where = f"/{kind}/{(await scim.made(f'/{kind}', body))['id']}"
    other = a_user("bob") if kind == "Users" else a_group("others")
    store.error = ScimTooLong("displayName is longer than 2000 bytes")
    many = {"method": "POST", "path": f"/{kind}", "bulkId": "x", "data": other}
    for method, path, sent in (
        ("POST", f"/{kind}", other),
        ("PUT", where, other),
        ("PATCH", where, LONG),
        ("POST", "/Bulk", {"schemas": [BULK], "Operations": [many]}),
    ):
        found = await _refused(scim, method, path, sent)
        assert found == (400, "invalidValue", "displayName is longer than 2000 bytes"), (method, path)


@pytest.mark.parametrize(
    "filter_",
    ['userName eq "ann"', 'userName eq "ann" and title eq "Boss"'],
    ids=["by the store", "one by one"],
)
@pytest.mark.parametrize(
    ("error", "keyword"),
    [
        (ScimTooComplex("the filter has more than 100 parts"), "invalidFilter"),
        (ScimInvalidCursor("the cursor is none of this search"), "invalidCursor"),
    ],
)
async def test_searches(filter_: str, error: Exception, keyword: str) -> None:
    store = Refusing()
    scim = service(store)
    await scim.user("ann", title="Boss")
    store.error = error
    body = {"schemas": [SEARCH], "filter": filter_}
    for found in (
        await _refused(scim, "GET", f"/Users?filter={filter_}"),
        await _refused(scim, "POST", "/Users/.search", body),
    ):
        assert found[:2] == (400, keyword)


@pytest.mark.parametrize("sort", ["userName", "title"], ids=["by the store", "one by one"])
async def test_a_cursor_of_another_search(sort: str) -> None:
    scim = service()
    for name in ("ann", "bob", "cid"):
        await scim.user(name, title=name)
    first = (await scim.call("GET", f"/Users?cursor&count=1&sortBy={sort}")).json()
    cursor = first["nextCursor"]
    good = await scim.call("GET", f"/Users?cursor={cursor}&count=1&sortBy={sort}")
    assert good.json()["Resources"][0]["userName"] == "bob"
    other = "title" if sort == "userName" else "userName"
    for changed in (f"sortBy={other}", f"sortBy={sort}&sortOrder=descending", f"sortBy={sort}&filter=id pr"):
        found = await _refused(scim, "GET", f"/Users?cursor={cursor}&count=1&{changed}")
        assert found[:2] == (400, "invalidCursor"), changed
