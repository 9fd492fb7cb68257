"""What is asked of Graph, and what is recorded of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import NoReturn
from urllib.parse import unquote

import pytest

from aim.bridges.msgraph.graph import ResyncNeeded
from aim.bridges.msgraph.reading import key_of
from aim.bridges.msgraph.source import GraphSource
from aim.directory.model import Directory, Severity
from aim.directory.roster import Roster
from aim.errors import SourceError, SourceInvalid, SourceUnavailable
from aim.ports.source import Source
from tests.servers.graph_delta import Habits
from tests.servers.graph_tenant import GROUPS, USERS
from tests.unit.graph_world import SETTINGS, Tenancy, members, shown


def asked(tenancy: Tenancy) -> list[str]:
    """The requests since the last time, without tokens."""
    requests = [unquote(request).partition("token=")[0] for request in tenancy.graph.requests]
    tenancy.graph.requests.clear()
    return [request.rpartition("/v1.0")[2] for request in requests]


def tenancy_of(**settings: object) -> Tenancy:
    return Tenancy(settings=replace(SETTINGS, **settings))  # type: ignore[arg-type]  # whichever the test is about


# Requests


async def test_everything_takes_a_request_a_page_and_a_look_takes_two() -> None:
    tenancy = Tenancy()
    tenancy.tenant.fill(users=2_500, groups=30, members=20, nested=10)
    poller = tenancy.poller(tenancy.store)
    first = await poller.poll()
    users, groups = tenancy.model.least_pages()
    requests = asked(tenancy)
    assert len(requests) == users + groups + 1
    assert requests.count("/organization?$select=displayName") == 1
    assert requests[1] == (
        "/users/delta?$select=id,userPrincipalName,displayName,mail,accountEnabled,userType"
    )
    assert requests[2] == "/groups/delta?$select=id,displayName,mailNickname,members"
    assert (len(first.users), len(first.groups)) == (2_500, 30)
    before = first.revision
    assert (await poller.poll()).revision == before
    assert sorted(asked(tenancy)) == ["/groups/delta?$delta", "/users/delta?$delta"]
    for user in tenancy.tenant.all(USERS)[:10]:
        tenancy.tenant.change(user.id, displayName="New")
    assert (await poller.poll()).revision == before + 1
    assert len(asked(tenancy)) == 2


async def test_a_process_that_starts_goes_on_where_another_one_stopped() -> None:
    tenancy = Tenancy()
    ann = tenancy.tenant.add_user("ann")
    before = await tenancy.poller(tenancy.store).poll()
    asked(tenancy)
    tenancy.tenant.add_group("Staff", [ann])
    after = await tenancy.poller(tenancy.store).poll()
    assert len(asked(tenancy)) == 2
    assert after.revision == before.revision + 1
    assert members(tenancy.directory(after), "Staff") == [["ann"]]


async def test_who_only_looks_records_nothing() -> None:
    tenancy = Tenancy()
    tenancy.tenant.add_user("ann")
    assert len((await tenancy.poller().poll()).users) == 1
    assert tenancy.store.stored is None
    await tenancy.poller(tenancy.store).poll()
    tenancy.tenant.add_user("bob")
    stored = await tenancy.store.load()
    assert len((await tenancy.poller().poll()).users) == 2
    assert await tenancy.store.load() == stored


async def test_links_alone_are_recorded_now_and_then() -> None:
    tenancy = Tenancy()
    poller = tenancy.poller(tenancy.store)
    for _ in range(3):
        await poller.poll()
    assert tenancy.store.records == 1
    tenancy.later(hours=2)
    await poller.poll()
    await poller.poll()
    assert tenancy.store.records == 2


# Complete reads


@pytest.mark.parametrize("collection", [USERS, GROUPS, None])
async def test_where_graph_can_not_tell_all_is_read_anew(collection: str | None) -> None:
    tenancy = Tenancy()
    ann = tenancy.tenant.add_user("ann")
    poller = tenancy.poller(tenancy.store)
    before = (await poller.poll()).revision
    tenancy.model.deltas.expire(collection)
    assert (await poller.poll()).revision == before
    tenancy.model.deltas.expire(collection)
    tenancy.tenant.add_group("Staff", [ann])
    state = await poller.poll()
    assert state.revision == before + 1
    assert members(tenancy.directory(state), "Staff") == [["ann"]]
    assert tenancy.warnings == []


async def test_all_is_read_anew_once_a_day_and_a_difference_is_told() -> None:
    tenancy = Tenancy()
    ann, bob = tenancy.tenant.add_user("ann"), tenancy.tenant.add_user("bob")
    staff = tenancy.tenant.add_group("Staff", [ann])
    poller = tenancy.poller(tenancy.store)
    before = (await poller.poll()).revision
    tenancy.later(hours=25)
    tenancy.tenant.join(staff, bob)
    await poller.poll()
    assert len(asked(tenancy)) > 3
    tenancy.later(minutes=20)
    await poller.poll()
    assert tenancy.warnings == [], "what has changed since was no mistake"
    # What no change told of.
    tenancy.tenant.find(ann).properties["mail"] = "new@example.com"  # type: ignore[union-attr]  # it is there
    await poller.poll()
    tenancy.later(hours=25)
    state = await poller.poll()
    assert tenancy.warnings == [], "it may still be told of"
    tenancy.later(minutes=20)
    await poller.poll()
    assert len(tenancy.warnings) == 1
    assert "found 1 users or groups" in tenancy.warnings[0]
    asked(tenancy)
    await poller.poll()
    assert len(asked(tenancy)) == 2, "that is over"
    assert state.users[ann].mail == "new@example.com"
    assert state.revision == before + 2


async def test_changes_that_are_only_late_are_no_difference() -> None:
    tenancy = Tenancy()
    ann = tenancy.tenant.add_user("ann")
    poller = tenancy.poller(tenancy.store)
    await poller.poll()
    tenancy.later(hours=25)
    tenancy.model.deltas.habits = Habits(lag=1)
    tenancy.tenant.change(ann, displayName="Late")
    assert (await poller.poll()).users[ann].display_name == "Late"
    tenancy.later(minutes=20)
    tenancy.model.deltas.habits = Habits()
    await poller.poll()
    assert tenancy.warnings == []


async def test_a_read_whose_pages_graph_forgets_is_an_error_and_the_next_is_whole() -> None:
    tenancy = Tenancy()
    tenancy.tenant.fill(users=30, groups=2, members=5)
    tenancy.settings = replace(SETTINGS, page_size=4)
    poller = tenancy.poller(tenancy.store)
    before = await poller.poll()
    tenancy.model.deltas.expire()
    tenancy.graph.requests.clear()

    def forget(target: str) -> None:
        if "$skiptoken" in unquote(target):
            tenancy.model.deltas.expire(USERS)

    tenancy.graph.before = forget
    for _ in range(2):
        with pytest.raises(ResyncNeeded):
            await poller.poll()
        # The changes, the beginning of everything, and nothing again before the next look.
        assert len(asked(tenancy)) < 10
        assert await tenancy.store.load() == before
    tenancy.graph.before = lambda _: None
    assert len((await poller.poll()).users) == 30


async def test_who_was_erased_and_is_enabled_again_is_read_with_their_groups() -> None:
    tenancy = Tenancy()
    tenancy.model.deltas.habits = Habits(items="all")
    ann = tenancy.tenant.add_user("ann", accountEnabled=False)
    staff = tenancy.tenant.add_group("Staff", [ann])
    poller = tenancy.poller(tenancy.store)
    await poller.poll()
    tenancy.store.erase(ann)
    tenancy.tenant.change(staff, displayName="All staff")
    assert ann not in (await poller.poll()).users, "it has noticed"
    tenancy.tenant.change(ann, displayName="Ann")
    await poller.poll()
    stored = await tenancy.store.load()
    assert stored is not None
    assert (ann in stored.users, stored.members) == (False, {})
    tenancy.tenant.change(ann, accountEnabled=True)
    for following in (poller, tenancy.poller(tenancy.store)):
        assert members(tenancy.directory(await following.poll()), "All staff") == [["ann"]]


async def test_two_who_record_do_not_spoil_it() -> None:
    tenancy = Tenancy()
    one, two = tenancy.poller(tenancy.store), tenancy.poller(tenancy.store)
    for number in range(4):
        tenancy.tenant.add_user(f"user{number}")
        assert len((await one.poll()).users) == len((await two.poll()).users) == number + 1
    stored = await tenancy.store.load()
    assert stored is not None
    assert len(stored.users) == 4


async def test_without_a_list_at_its_end_there_is_no_directory() -> None:
    tenancy = Tenancy()
    answer = tenancy.graph._ask

    def cut(target: str, headers: object = None) -> dict[str, object]:
        content = answer(target)
        content.pop("@odata.deltaLink", None)
        return content

    tenancy.graph._ask = cut  # type: ignore[method-assign]  # the stand-in always gives one
    with pytest.raises(SourceInvalid, match="deltaLink"):
        await tenancy.poller(tenancy.store).poll()
    assert tenancy.store.stored is None


async def test_the_name_may_be_kept_from_us() -> None:
    tenancy = Tenancy()
    poller = tenancy.poller(tenancy.store)
    assert tenancy.directory(await poller.poll()).name == "Example"

    def refuse(target: str) -> None:
        if "organization" in target:
            raise SourceInvalid("not allowed")

    tenancy.graph.before = refuse
    tenancy.later(hours=25)
    assert tenancy.directory(await poller.poll()).name == "Example"
    assert tenancy.directory(await tenancy.whole()).name == "tenant"


# Only some


async def test_a_filter_for_users() -> None:
    tenancy = tenancy_of(filter="startswith(userPrincipalName,'a')")
    ann, bob = tenancy.tenant.add_user("ann"), tenancy.tenant.add_user("bob")
    tenancy.tenant.add_group("Staff", [ann, bob])
    poller = tenancy.poller(tenancy.store)
    assert members(tenancy.directory(await poller.poll()), "Staff") == [["ann"]]
    assert tenancy.model.refusals == []
    asked(tenancy)
    await poller.poll()
    assert len(asked(tenancy)) == 2
    tenancy.tenant.change(bob, userPrincipalName="adam@example.com")
    assert members(tenancy.directory(await poller.poll()), "Staff") == [["adam", "ann"]]
    # Once more, for the index may be behind; then it is quiet again.
    asked(tenancy)
    await poller.poll()
    assert sum(request.startswith("/users?") for request in asked(tenancy)) == 1
    await poller.poll()
    assert len(asked(tenancy)) == 2
    tenancy.tenant.delete(ann)
    assert members(tenancy.directory(await poller.poll()), "Staff") == [["adam"]]


async def test_only_some_groups_with_those_in_them() -> None:
    tenancy = Tenancy()
    ann, bob, cleo = (tenancy.tenant.add_user(name) for name in ("ann", "bob", "cleo"))
    inner = tenancy.tenant.add_group("Inner", [bob])
    outer = tenancy.tenant.add_group("Outer", [ann, inner])
    other = tenancy.tenant.add_group("Other", [cleo])
    tenancy.settings = replace(SETTINGS, groups=(outer.upper(),))
    poller = tenancy.poller(tenancy.store)
    directory = tenancy.directory(await poller.poll())
    assert members(directory, outer) == [["ann", "bob"]]
    assert members(directory, "Inner") == [["bob"]]
    assert [user.localpart for user in sorted(directory.users, key=lambda user: user.localpart)] == [
        "ann",
        "bob",
    ]
    assert directory.find(other) == ()
    assert tenancy.model.refusals == []
    # A group that comes into one of them is read; one that goes out does not count any more.
    asked(tenancy)
    tenancy.tenant.join(inner, other)
    directory = tenancy.directory(await poller.poll())
    assert len(asked(tenancy)) == 4
    assert members(directory, outer) == [["ann", "bob", "cleo"]]
    tenancy.tenant.add_user("dora")
    tenancy.tenant.leave(outer, inner)
    directory = tenancy.directory(await tenancy.poller(tenancy.store).poll())
    assert [user.localpart for user in directory.users] == ["ann"]
    assert shown(directory) == shown(tenancy.directory(await tenancy.whole()))


async def test_groups_in_a_group_count_only_if_they_are_wanted() -> None:
    tenancy = Tenancy()
    inner = tenancy.tenant.add_group("Inner", [tenancy.tenant.add_user("bob")])
    outer = tenancy.tenant.add_group("Outer", [tenancy.tenant.add_user("ann"), inner])
    tenancy.settings = replace(SETTINGS, transitive=False)
    assert members(tenancy.directory(await tenancy.whole()), "Outer") == [["ann"]]
    tenancy.settings = replace(SETTINGS, transitive=False, groups=(outer,))
    directory = tenancy.directory(await tenancy.whole())
    assert (members(directory, "Outer"), directory.find("Inner")) == ([["ann"]], ())


async def test_more_groups_than_fit_into_a_filter() -> None:
    tenancy = Tenancy()
    tenancy.model.deltas.habits = Habits(page=7, members=3)
    ids = [tenancy.tenant.add_group(f"G{n}", [tenancy.tenant.add_user(f"u{n}")]) for n in range(120)]
    tenancy.tenant.join(ids[0], *ids[1:])
    tenancy.settings = replace(SETTINGS, groups=(ids[0],))
    poller = tenancy.poller(tenancy.store)
    state = await poller.poll()
    assert len(members(tenancy.directory(state), ids[0])[0]) == 120
    assert [len(link.ids) for link in state.links.groups] == [1, 50, 50, 19]
    tenancy.tenant.join(ids[100], tenancy.tenant.add_user("new"))
    assert "new" in members(tenancy.directory(await poller.poll()), ids[0])[0]


async def test_a_group_that_is_not_there_is_an_error() -> None:
    missing = "00000000-0000-0000-0000-00000000000A"
    tenancy = tenancy_of(groups=(missing,))
    state = await tenancy.poller(tenancy.store).poll()
    with pytest.raises(SourceInvalid, match="00000000000a, and there is no such group"):
        tenancy.directory(state)


def test_another_way_to_read_is_another_key() -> None:
    keys = {
        key_of(replace(SETTINGS, **change))
        for change in (
            {},
            {"tenant_id": "other"},
            {"client_id": "other"},
            {"base_url": "https://other"},
            {"filter": "x"},
            {"groups": ("a",)},
            {"groups": ("a",), "transitive": False},
            {"localpart": "mail"},
        )
    }
    assert len(keys) == 8
    assert key_of(SETTINGS) == key_of(replace(SETTINGS, include_guests=True, transitive=False, page_size=1))


# Directories


async def directory_with(tenancy: Tenancy) -> Directory:
    return tenancy.directory(await tenancy.whole())


async def test_users_and_groups() -> None:
    tenancy = Tenancy()
    ann = tenancy.tenant.add_user("Ann", displayName=" Ann E. ", mail="Ann@EXAMPLE.com")
    bob = tenancy.tenant.add_user("bob", accountEnabled=False)
    untold = tenancy.tenant.add_user("untold", accountEnabled=None)
    staff = tenancy.tenant.add_group("All Staff", [ann, bob, untold, tenancy.tenant.add_other()])
    directory = await directory_with(tenancy)
    users = {user.id: user for user in directory.users}
    assert (users[ann].localpart, users[ann].uid) == ("ann", "Ann@example.com")
    assert (users[ann].display_name, users[ann].emails) == ("Ann E.", ("ann@example.com",))
    assert (users[ann].active, users[bob].active, users[untold].active) == (True, False, True)
    assert not users[ann].weak_id
    for name in (staff, staff.upper(), "All Staff", "all-staff"):
        assert members(directory, name) == [["ann", "untold"]], name
    assert directory.find("all staff") == ()
    assert directory.roster.localparts(directory.everyone) == ["ann", "untold"]
    assert (directory.source, directory.name, directory.problems) == ("ms-graph-ad", "Example", ())


async def test_a_name_that_groups_share_means_all_of_them() -> None:
    tenancy = Tenancy()
    tenancy.tenant.add_group("Staff", [tenancy.tenant.add_user("ann")])
    tenancy.tenant.add_group("Others", [tenancy.tenant.add_user("bob")], mailNickname="Staff")
    assert sorted(members(await directory_with(tenancy), "Staff")) == [["ann"], ["bob"]]


async def test_groups_in_groups_even_in_a_circle() -> None:
    tenancy = Tenancy()
    inner = tenancy.tenant.add_group("Inner", [tenancy.tenant.add_user("bob")])
    outer = tenancy.tenant.add_group("Outer", [tenancy.tenant.add_user("ann"), inner])
    tenancy.tenant.join(inner, outer)
    directory = await directory_with(tenancy)
    assert members(directory, "Inner") == members(directory, "Outer") == [["ann", "bob"]]


async def test_guests_are_there_if_they_are_wanted() -> None:
    tenancy = Tenancy()
    guest = tenancy.tenant.add_guest("Eve@example.org")
    marked = tenancy.tenant.add_guest("fay@example.org", userType=None)
    member = tenancy.tenant.add_guest("gil@example.org", userType="Member")
    tenancy.tenant.add_group("Staff", [guest, marked, member])
    assert members(await directory_with(tenancy), "Staff") == [["gil_example.org"]]
    tenancy.settings = replace(SETTINGS, include_guests=True)
    everybody = ["eve_example.org", "fay_example.org", "gil_example.org"]
    assert members(await directory_with(tenancy), "Staff") == [everybody]


@pytest.mark.parametrize(
    ("attribute", "value", "localpart"),
    [
        ("mailNickname", "Ann.E", "ann.e"),
        ("mail", "ann.e@example.com", "ann.e"),
        ("onPremisesSamAccountName", "anne", "anne"),
        ("userPrincipalName", "Ännchen@example.com", "=c3=84nnchen"),
    ],
)
async def test_the_localpart_is_made_of_the_configured_property(
    attribute: str, value: str, localpart: str
) -> None:
    tenancy = tenancy_of(localpart=attribute)
    tenancy.tenant.add_user("ann", **{attribute: value})
    assert [user.localpart for user in (await directory_with(tenancy)).users] == [localpart]
    assert tenancy.model.refusals == []


async def test_who_clashes_and_who_has_no_localpart_is_left_alone() -> None:
    tenancy = tenancy_of(localpart="mail")
    one, two = (
        tenancy.tenant.add_user("one", mail="Same@a.org"),
        tenancy.tenant.add_user("two", mail="same@b.org"),
    )
    none, long = tenancy.tenant.add_user("none"), tenancy.tenant.add_user("long", mail=f"{'x' * 201}@a.org")
    fine = tenancy.tenant.add_user("fine", mail="fine@a.org")
    tenancy.tenant.add_group("Staff", [one, two, none, long, fine])
    directory = await directory_with(tenancy)
    assert members(directory, "Staff") == [["fine"]]
    assert directory.unresolved == {one, two, none, long}
    assert directory.roster.localparts(directory.contested) == ["same"]
    assert [(problem.severity, problem.subject) for problem in directory.problems] == [
        (Severity.ERROR, "same"),
        (Severity.WARNING, "long@example.com"),
        (Severity.WARNING, "none@example.com"),
    ]
    assert directory.problems[0].message == (
        "2 users come to this localpart: one@example.com; two@example.com. None of them is touched"
    )


# The source


async def test_the_source_reads_and_its_fingerprint_tells_of_changes() -> None:
    tenancy = Tenancy()
    ann = tenancy.tenant.add_user("ann")
    source: Source = GraphSource(
        tenancy.graph, tenancy.settings, tenancy.store, tenancy.store, tenancy.clock.now
    )
    seen = [await source.fingerprint()]
    assert [user.id for user in (await source.read(Roster())).users] == [ann]
    assert await source.fingerprint() == seen[0]
    tenancy.tenant.add_group("Staff", [ann])
    seen.append(await source.fingerprint())
    tenancy.tenant.change(ann, accountEnabled=False)
    seen.append(await source.fingerprint())
    tenancy.tenant.change(ann, officeLocation="7")
    assert await source.fingerprint() == seen[-1]
    assert len(set(seen)) == 3
    assert source.type == "ms-graph-ad"
    assert shown(await source.read(Roster())) == shown(tenancy.directory(await tenancy.whole()))


async def test_a_database_that_is_away_gives_no_directory() -> None:
    tenancy = Tenancy()
    tenancy.store.fails = lambda: True
    source = GraphSource(tenancy.graph, tenancy.settings, tenancy.store, tenancy.store, tenancy.clock.now)
    with pytest.raises(SourceUnavailable, match="the connection was lost"):
        await source.read(Roster())
    tenancy.store.fails = lambda: False
    await source.read(Roster())


@pytest.mark.parametrize("is_known", [False, True], ids=["the first read", "changes"])
async def test_a_look_that_is_cancelled_while_it_records_is_made_again(is_known: bool) -> None:
    tenancy = Tenancy()
    source = GraphSource(tenancy.graph, tenancy.settings, tenancy.store, tenancy.store, tenancy.clock.now)
    if is_known:
        await source.fingerprint()
    ann = tenancy.tenant.add_user("ann")
    recording = asyncio.Event()

    async def never(*_: object) -> NoReturn:
        recording.set()
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tenancy.store, "record" if is_known else "replace", never)
        looking = asyncio.create_task(source.fingerprint())
        await asyncio.wait_for(recording.wait(), 5)
        looking.cancel()
        await asyncio.wait({looking}, timeout=5)
    assert looking.cancelled()
    assert [user.id for user in (await source.read(Roster())).users] == [ann]
    stored = await tenancy.store.load()
    assert stored is not None
    assert set(stored.users) == {ann}


async def test_whatever_fails_leaves_what_is_known_as_it_was() -> None:
    tenancy = Tenancy()
    ann = tenancy.tenant.add_user("ann")
    poller = tenancy.poller(tenancy.store)
    before = await poller.poll()
    tenancy.tenant.add_group("Staff", [ann])
    tenancy.tenant.delete(ann)

    def fail(target: str) -> None:
        if "groups" in target:
            raise SourceUnavailable("away")

    tenancy.graph.before = fail
    with pytest.raises(SourceError, match="away"):
        await poller.poll()
    assert (set(before.users), before.groups) == ({ann}, {})
    stored = await tenancy.store.load()
    assert stored is not None
    assert (set(stored.users), stored.groups) == ({ann}, {})
