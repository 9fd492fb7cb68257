"""What looks like success and is none, and what looks odd and is right: each trap of LDAP is a test.

On the real servers where they can show it, else on the stand-in. A read is complete or it is an error.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest
from ldap3 import Server

from aim.bridges.ldap.bridge import LdapSource
from aim.bridges.ldap.channel import Piece
from aim.bridges.ldap.search import CLASSES, Tree
from aim.bridges.ldap.settings import LdapSettings
from aim.directory import kinds
from aim.directory.entries import Rules
from aim.directory.roster import Roster
from aim.errors import SourceInvalid, SourceUnavailable
from tests.contract.ldap import members, of_samba, of_slapd, read, refused
from tests.servers import ldap_messages as ldap
from tests.servers import samba as ad
from tests.servers.answers import (
    Change,
    Entry,
    cut,
    cut_after,
    delay,
    disconnect,
    fail,
    mention,
    refer,
    renumber,
    send,
    slip_in,
    trickle,
    unpaged,
)
from tests.servers.hostile import (
    BASE,
    PEOPLE,
    READER,
    Manners,
    NewStandIn,
    StandIn,
    domain,
    group,
    organisation,
    person,
)
from tests.servers.malformed import MALFORMED, UNUSUAL
from tests.servers.samba import NewSamba, Samba
from tests.servers.slapd import SUFFIX, NewSlapd, Settings, Slapd


def of_stand_in(stand_in: StandIn, **changed: Any) -> LdapSettings:
    settings = LdapSettings(
        uris=(stand_in.uri,), base=BASE, bind_dn=READER, bind_password="password", read_timeout=10
    )
    return replace(settings, **changed)


# -- limits and results --------------------------------------------------------------------------------------


async def test_more_entries_than_the_size_limit_come_in_pages(new_slapd: NewSlapd) -> None:
    slapd = new_slapd(Settings(plain_limit=5))
    assert len((await read(of_slapd(slapd))).users) == 11


@pytest.mark.parametrize("limits", [{"page_limit": 10}, {"paged_limit": 10}])
async def test_a_limit_on_pages_is_an_error(new_slapd: NewSlapd, limits: dict[str, int]) -> None:
    error = await refused(of_slapd(new_slapd(Settings(plain_limit=5, **limits))))  # type: ignore[arg-type]  # ints
    assert isinstance(error, SourceInvalid)
    assert "limit" in error.message
    assert "size.pr" in error.remedy


@pytest.mark.parametrize("after", [0, 1, 40])
@pytest.mark.parametrize("page", [1, 2, 3])
@pytest.mark.parametrize(
    "code", [ldap.TIME_LIMIT_EXCEEDED, ldap.SIZE_LIMIT_EXCEEDED, ldap.ADMIN_LIMIT_EXCEEDED, ldap.OTHER]
)
async def test_every_pages_result_counts(new_stand_in: NewStandIn, code: int, page: int, after: int) -> None:
    stand_in = new_stand_in(organisation(100), Manners(max_page_size=40))
    stand_in.on_search(fail(code, after=after), page=page)
    error = await refused(of_stand_in(stand_in))
    assert isinstance(error, SourceInvalid)
    assert f"result {code}" in error.message


@pytest.mark.parametrize("page", [1, 2])
async def test_a_referral_as_the_result_is_an_error_and_not_followed(
    new_stand_in: NewStandIn, page: int
) -> None:
    elsewhere = new_stand_in(organisation(3))
    stand_in = new_stand_in(organisation(100), Manners(max_page_size=40))
    stand_in.on_search(refer(elsewhere.uri, after=5), page=page)
    error = await refused(of_stand_in(stand_in))
    assert elsewhere.uri in error.message
    assert "never followed" in error.remedy
    assert elsewhere.connections == 0


async def test_references_among_the_entries_are_not_followed(new_stand_in: NewStandIn) -> None:
    elsewhere = new_stand_in(organisation(3))
    stand_in = new_stand_in(organisation(5))
    stand_in.on_search(mention(f"{elsewhere.uri}/DC=sub,{BASE}", after=2))
    assert len((await read(of_stand_in(stand_in))).users) == 5
    assert elsewhere.connections == 0


async def test_the_referrals_at_a_domains_base_are_ignored(samba: Samba) -> None:
    found = await read(of_samba(samba, base=ad.BASE))
    assert "ada" in {user.localpart for user in found.users}


async def test_a_server_that_ignores_pages_is_an_error(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(5))
    stand_in.on_search(unpaged)
    assert "no pages" in (await refused(of_stand_in(stand_in))).message


async def test_pages_of_1000_at_most_are_read_to_the_last(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(2500), Manners(max_page_size=1000))
    assert len((await read(of_stand_in(stand_in))).users) == 2500
    assert len((await read(of_stand_in(stand_in, page_size=5000))).users) == 2500


async def test_pages_without_entries_are_no_end(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(100), Manners(max_page_size=40, empty_pages=3))
    assert len((await read(of_stand_in(stand_in))).users) == 100


async def test_a_server_that_never_comes_to_an_end_is_stopped(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(100), Manners(max_page_size=40, endless=True))
    assert "two entries have the DN" in (await refused(of_stand_in(stand_in))).message


# -- the connection ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [1, 2])
@pytest.mark.parametrize(
    "change", [cut(after=7), cut(after=7, reset=True), cut_after(1), cut_after(700), disconnect(after=7)]
)
async def test_a_connection_that_is_cut_is_an_error(
    new_stand_in: NewStandIn, change: Change, page: int
) -> None:
    stand_in = new_stand_in(organisation(100), Manners(max_page_size=40))
    stand_in.on_search(change, page=page)
    error = await refused(of_stand_in(stand_in))
    assert isinstance(error, SourceUnavailable)
    assert "connection was lost" in error.message
    stand_in.behave()
    assert len((await read(of_stand_in(stand_in))).users) == 100


async def test_notice_of_disconnection_is_passed_on(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(5))
    stand_in.on_search(disconnect(after=2))
    assert "shutting down" in (await refused(of_stand_in(stand_in))).message


async def test_a_server_that_is_killed_while_it_is_read_is_an_error(
    new_slapd: NewSlapd, monkeypatch: pytest.MonkeyPatch
) -> None:
    slapd = new_slapd()
    source = LdapSource(of_slapd(slapd, page_size=1))
    check, pages = Tree._check, itertools.count(1)

    def check_and_kill(tree: Tree, piece: Piece) -> bytes:
        if next(pages) == 5:
            slapd.kill()
        return check(tree, piece)

    monkeypatch.setattr(Tree, "_check", check_and_kill)
    with pytest.raises(SourceUnavailable, match="connection was lost"):
        await source.read(Roster())
    monkeypatch.undo()
    slapd.start()
    assert len((await source.read(Roster())).users) == 11


@pytest.mark.parametrize("page", [1, 2])
async def test_a_server_that_falls_silent_is_given_up(new_stand_in: NewStandIn, page: int) -> None:
    stand_in = new_stand_in(organisation(100), Manners(max_page_size=40))
    hold = stand_in.hold(after=7, page=page)
    error = await refused(of_stand_in(stand_in, read_timeout=0.5))
    assert isinstance(error, SourceUnavailable)
    assert "did not answer within 0.5 seconds" in error.message
    hold.release()


async def test_a_server_that_dawdles_has_one_time_for_a_whole_page(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(20))
    for after in range(0, 20, 2):
        stand_in.on_search(delay(0.2, after=after))
    assert "did not answer" in (await refused(of_stand_in(stand_in, read_timeout=1.0))).message


async def test_a_server_may_send_in_pieces_of_any_size(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(3))
    stand_in.on_search(trickle(1))
    assert len((await read(of_stand_in(stand_in))).users) == 3


@pytest.fixture
def _small_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """ldap3 counts messages over all connections; the samples take ids of one byte."""
    monkeypatch.setattr(Server, "_message_counter", 0)


# -- what is no LDAP -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_small_ids")
@pytest.mark.parametrize("name", sorted(MALFORMED))
async def test_what_is_malformed_is_an_error(new_stand_in: NewStandIn, name: str) -> None:
    stand_in = new_stand_in(organisation(5))
    stand_in.on_search(send(MALFORMED[name], after=3))
    error = await refused(of_stand_in(stand_in))
    assert "malformed" in error.message or "connection was lost" in error.message


@pytest.mark.usefixtures("_small_ids")
@pytest.mark.parametrize("name", sorted(UNUSUAL))
async def test_what_is_unusual_is_read(new_stand_in: NewStandIn, name: str) -> None:
    stand_in = new_stand_in(organisation(5))
    stand_in.on_search(slip_in(UNUSUAL[name], after=3))
    assert len((await read(of_stand_in(stand_in))).users) == 5


async def test_an_answer_to_another_question_is_an_error(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(5))
    stand_in.on_search(renumber(99_999, after=2))
    assert "nobody asked" in (await refused(of_stand_in(stand_in))).message


# -- large groups --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1500, 1501, 3000, 3001, 4700])
async def test_members_that_come_in_ranges_are_read_to_the_last(new_stand_in: NewStandIn, count: int) -> None:
    stand_in = new_stand_in(organisation(count))
    found = await read(of_stand_in(stand_in))
    assert len(members(found, f"CN=everyone,{PEOPLE}")) == count


async def test_several_large_groups_are_all_read(new_stand_in: NewStandIn) -> None:
    people = [person(number) for number in range(9)]
    several = [group(f"g{size}", [entry.dn for entry in people[:size]]) for size in range(1, 10)]
    stand_in = new_stand_in([*domain(), *people, *several], Manners(max_page_size=4, max_values=2))
    found = await read(of_stand_in(stand_in))
    for size in range(1, 10):
        assert members(found, f"CN=g{size},{PEOPLE}") == [f"user{number}" for number in range(size)]


async def test_a_group_that_goes_while_its_ranges_are_read_is_an_error(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(10), Manners(max_values=4))
    hold = stand_in.hold()
    reading = asyncio.create_task(read(of_stand_in(stand_in)))
    await asyncio.to_thread(hold.reached.wait, 10)
    stand_in.entries[:] = [entry for entry in stand_in.entries if "everyone" not in entry.dn]
    hold.release()
    with pytest.raises(SourceUnavailable, match="changed while it was read"):
        await reading


async def test_samba_gives_ranges_that_are_asked_for(new_samba: NewSamba) -> None:
    samba = new_samba()
    people = [samba.add_user(f"u{number}") for number in range(30)]
    samba.add_group("large", members=people)
    found = await read(of_samba(samba, page_size=7))
    assert len(members(found, f"CN=large,{ad.EMPLOYEES}")) == 30


# -- Active Directory ----------------------------------------------------------------------------------------


async def test_a_primary_group_has_members_it_does_not_list(samba: Samba) -> None:
    listed = samba.get(f"CN=engineering,{ad.EMPLOYEES}", "member")["member"]
    assert [b"Finn" in dn for dn in listed] == [False]
    found = await read(of_samba(samba))
    assert members(found, f"CN=engineering,{ad.EMPLOYEES}") == ["eva", "finn"]
    whole = await read(of_samba(samba, base=ad.BASE))
    assert "ada" in members(whole, f"CN=Domain Users,CN=Users,{ad.BASE}")


async def test_computers_and_contacts_are_nobody(samba: Samba) -> None:
    found = await read(of_samba(samba))
    names = {user.uid for user in found.users}
    assert "PC1$" not in names
    assert not any("Supplier" in (user.dn or "") for user in found.users)
    assert members(found, f"CN=staff,{ad.EMPLOYEES}") == ["ada", "greta"]


async def test_disabled_accounts_are_marked(new_samba: NewSamba) -> None:
    samba = new_samba()
    ada = f"CN=Ada Abel,{ad.EMPLOYEES}"
    for disabled in (True, False):
        samba.disable(ada, disabled)
        found = await read(of_samba(samba))
        assert {user.localpart: user.active for user in found.users}["ada"] is not disabled


# -- 389ds and FreeIPA, which are not here -------------------------------------------------------------------


def freeipa() -> list[Entry]:
    def of(name: str, **more: bytes) -> Entry:
        attributes = {
            "objectClass": [b"top", b"person", b"inetorgperson", b"inetuser", b"posixaccount", b"ipaobject"],
            "uid": [name.encode()],
            "cn": [name.title().encode()],
            "ipaUniqueID": [f"{name}-0000".encode()],
        }
        return Entry(f"uid={name},{PEOPLE}", attributes | {key: [value] for key, value in more.items()})

    both = {"nsUniqueId": [b"66446001-1dd211b2-66225011-2ee211db"]}
    locked = of("ben", nsAccountLock=b"TRUE")
    unlocked = of("cleo", nsAccountLock=b"FALSE")
    members = [b"uid=ada," + PEOPLE.encode(), b"uid=ben," + PEOPLE.encode()]
    return [
        *domain(),
        Entry(of("ada").dn, {**of("ada").attributes, **both}),
        locked,
        unlocked,
        Entry(
            f"cn=editors,{PEOPLE}",
            {"objectClass": [b"groupofnames", b"ipausergroup"], "cn": [b"editors"], "member": members},
        ),
    ]


async def test_accounts_that_freeipa_locks_are_marked_and_ids_are_stable(new_stand_in: NewStandIn) -> None:
    root = {
        "objectClass": [b"top"],
        "vendorName": [b"389 Project"],
        "vendorVersion": [b"389-Directory/2.3.1"],
        "supportedControl": [ldap.PAGED_RESULTS.encode()],
    }
    stand_in = new_stand_in(freeipa(), Manners(root=root))
    found = await read(of_stand_in(stand_in))
    assert {user.localpart: user.active for user in found.users} == {"ada": True, "ben": False, "cleo": True}
    assert {user.localpart: user.id for user in found.users} == {
        "ada": "66446001-1dd211b2-66225011-2ee211db",
        "ben": "ben-0000",
        "cleo": "cleo-0000",
    }
    assert members(found, f"cn=editors,{PEOPLE}") == ["ada"]
    described = await LdapSource(of_stand_in(stand_in)).describe()
    assert (described.vendor, described.error) == ("389 Project 389-Directory/2.3.1", None)
    assert described.method == "time stamps"


# -- names and values ----------------------------------------------------------------------------------------


async def test_members_are_found_however_they_are_spelled(slapd: Slapd) -> None:
    found = await read(of_slapd(slapd))
    assert members(found, "CN = staff , OU=Groups,dc=EXAMPLE,dc=com") == ["ada", "greta", "hal"]


async def test_members_outside_of_the_base_are_no_users(slapd: Slapd) -> None:
    found = await read(of_slapd(slapd, base=f"ou=groups,{SUFFIX}"))
    assert found.users == ()
    assert members(found, f"cn=staff,ou=groups,{SUFFIX}") == []


async def test_a_group_without_members_is_there_and_a_missing_one_is_not(slapd: Slapd) -> None:
    found = await read(of_slapd(slapd))
    assert members(found, f"cn=nobody,ou=groups,{SUFFIX}") == []
    assert members(found, f"ou=empty,ou=people,{SUFFIX}") == []
    assert found.find(f"cn=missing,ou=groups,{SUFFIX}") == ()


async def test_people_who_can_not_be_told_apart_are_problems(slapd: Slapd) -> None:
    found = await read(of_slapd(slapd))
    subjects = {problem.subject: problem.message for problem in found.problems}
    assert "2 users come to this localpart" in subjects["lea"]
    assert "has no user name" in subjects[f"cn=Jon Jansen,ou=sales,ou=people,{SUFFIX}"]
    assert "lea" not in {user.localpart for user in found.users}
    assert found.roster.localparts(found.contested) == ["lea"]


async def test_aliases_are_never_followed(new_slapd: NewSlapd) -> None:
    slapd = new_slapd()
    base = f"ou=mirror,{SUFFIX}"
    slapd.add(base, {"objectClass": "organizationalUnit"})
    alias = {"objectClass": ["alias", "extensibleObject"], "aliasedObjectName": f"ou=people,{SUFFIX}"}
    slapd.add(f"cn=alias,{base}", {**alias, "cn": "alias"})
    found = await read(of_slapd(slapd, base=base))
    assert found.users == ()
    assert [found_group.id for found_group in found.groups] == [base]


async def test_no_more_is_asked_for_than_is_used(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(3))
    rules = Rules.of(uid="employeeID", mail="otherMail")
    await read(of_stand_in(stand_in, rules=rules))
    (search,) = stand_in.searches
    assert set(search.attributes) == set(rules.attributes)
    assert {"employeeid", "othermail"} <= set(search.attributes)
    assert not {"*", "+", "userpassword", "unicodepwd"} & set(search.attributes)


def test_every_class_that_flattening_knows_is_asked_for() -> None:
    known = set(kinds._PEOPLE).union(*(names for _, names in kinds._CONTAINERS))
    assert known == set(CLASSES)
    assert len(CLASSES) == len(set(CLASSES))
