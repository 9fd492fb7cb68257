"""What was pushed becomes a Directory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from aim.bridges.scim.source import ScimSource
from aim.directory.model import Directory, Severity
from aim.directory.roster import NOBODY, Roster
from aim.errors import SourceUnavailable
from aim.ports.source import Source
from tests.unit.scim_client import Service, ops, service


async def read(scim: Service) -> Directory:
    source: Source = ScimSource(scim.store, "element-ad")
    return await source.read(Roster())


def members(directory: Directory, external_id: str) -> list[list[str]]:
    return [directory.roster.localparts(group.members) for group in directory.find(external_id)]


async def test_users_and_groups() -> None:
    scim = service()
    ann = await scim.user(
        "Ann", displayName=" Ann E. ", emails=[{"value": "Ann@EXAMPLE.com"}, {"value": "none"}]
    )
    bob = await scim.user("bob", active=False)
    group = await scim.group("Staff", [ann["id"], bob["id"]], externalId="x1")
    directory = await read(scim)
    assert (directory.source, directory.name) == ("scim", "element-ad")
    users = {user.localpart: user for user in directory.users}
    assert users["ann"].id == ann["id"]
    assert users["ann"].uid == "Ann"
    assert users["ann"].display_name == "Ann E."
    assert users["ann"].emails == ("ann@example.com",)
    assert not users["ann"].weak_id
    assert not users["bob"].active
    assert directory.roster.localparts(directory.everyone) == ["ann"]
    for name in (group["id"], "x1", "Staff"):
        assert members(directory, name) == [["ann"]]
    assert directory.find("staff") == ()
    assert directory.problems == ()
    assert list(directory.users) == sorted(directory.users, key=lambda user: user.id)


async def test_groups_in_groups_even_in_a_circle() -> None:
    scim = service()
    ann, bob = await scim.user("ann"), await scim.user("bob")
    inner = await scim.group("inner", [bob["id"]])
    outer = await scim.group("outer", [ann["id"], inner["id"]])
    circle = ops({"op": "add", "path": "members", "value": outer["id"]})
    directory = await read(scim)
    assert members(directory, "outer") == [["ann", "bob"]]
    assert members(directory, "inner") == [["bob"]]
    await scim.call("PATCH", f"/Groups/{inner['id']}", circle)
    directory = await read(scim)
    assert members(directory, "outer") == members(directory, "inner") == [["ann", "bob"]]


async def test_a_name_that_groups_share_means_all_of_them() -> None:
    scim = service()
    ann, bob = await scim.user("ann"), await scim.user("bob")
    await scim.group("staff", [ann["id"]])
    await scim.group("others", [bob["id"]], externalId="staff")
    assert sorted(members(await read(scim), "staff")) == [["ann"], ["bob"]]


async def test_who_clashes_and_who_has_no_localpart_is_left_alone() -> None:
    scim = service(username="externalId")
    one, two = (
        await scim.user("one", externalId="Same"),
        await scim.user("two", externalId="same", active=False),
    )
    none = await scim.user("none")
    fine = await scim.user("fine", externalId="fine")
    await scim.group("staff", [one["id"], two["id"], none["id"], fine["id"]])
    directory = await read(scim)
    assert [user.localpart for user in directory.users] == ["fine"]
    assert members(directory, "staff") == [["fine"]]
    assert directory.roster.localparts(directory.contested) == ["same"]
    assert directory.unresolved == {one["id"], two["id"], none["id"]}
    assert [(problem.severity, problem.subject) for problem in directory.problems] == [
        (Severity.ERROR, "same"),
        (Severity.WARNING, "none"),
    ]


async def test_it_is_filling_until_somebody_says_that_it_is_ready() -> None:
    scim = service()
    directory = await read(scim)
    assert directory.filling
    assert directory.everyone == NOBODY
    await scim.memory.set_ready(datetime(2026, 1, 1, tzinfo=UTC))
    assert not (await read(scim)).filling


async def test_the_fingerprint_changes_with_every_write() -> None:
    scim = service()
    source = ScimSource(scim.store, "x")
    seen = [await source.fingerprint()]
    ann = await scim.user("ann")
    seen.append(await source.fingerprint())
    await scim.call("DELETE", f"/Users/{ann['id']}")
    seen.append(await source.fingerprint())
    assert len(set(seen)) == 3
    assert await source.fingerprint() == seen[-1]


async def test_a_database_that_is_away_gives_no_directory() -> None:
    scim = service()
    scim.memory.away = True
    source = ScimSource(scim.store, "x")
    with pytest.raises(SourceUnavailable):
        await source.read(Roster())
    with pytest.raises(SourceUnavailable):
        await source.fingerprint()
