"""Changes are seen at the next poll, in every way of polling, on a real OpenLDAP and Active Directory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pytest

from aim.bridges.ldap.bridge import LdapSource
from aim.bridges.ldap.changes import Watcher
from aim.bridges.ldap.channel import Line
from aim.bridges.ldap.connect import connected
from aim.bridges.ldap.dirsync import DirSync
from aim.bridges.ldap.search import filtered_by
from aim.bridges.ldap.settings import LdapSettings
from aim.bridges.ldap.sweep import Sweep
from aim.bridges.ldap.syncrepl import Syncrepl
from aim.bridges.ldap.usn import Usn
from aim.errors import SourceInvalid, SourceUnavailable
from tests.contract.ldap import of_samba, of_slapd
from tests.servers import samba as ad
from tests.servers.answers import Entry
from tests.servers.editing import Editor
from tests.servers.hostile import BASE as STAND_IN_BASE
from tests.servers.hostile import READER as STAND_IN_READER
from tests.servers.hostile import Manners, NewStandIn, StandIn, organisation
from tests.servers.process import free_port
from tests.servers.samba import NewSamba, Samba
from tests.servers.slapd import SUFFIX, NewSlapd, Settings, Slapd

PEOPLE = f"ou=people,{SUFFIX}"


@dataclass
class Place:
    """A directory of one's own, the way it is polled, and how its entries are called."""

    server: Editor
    source: LdapSource
    method: str
    names: Mapping[str, str]

    async def token(self) -> str:
        token = await self.source.fingerprint()
        assert token.startswith(self.method)
        return token


OPENLDAP_NAMES = {
    "person": f"uid=ada,{PEOPLE}",
    "rdn": "uid=ada",
    "unit": f"ou=backend,ou=engineering,{PEOPLE}",
    "unit's new rdn": "ou=platform",
    "other unit": f"ou=sales,{PEOPLE}",
    "outside": f"ou=groups,{SUFFIX}",
    "group": f"cn=staff,ou=groups,{SUFFIX}",
    "member": f"uid=ben,{PEOPLE}",
}
ACTIVE_DIRECTORY_NAMES = {
    "person": f"CN=Ada Abel,{ad.EMPLOYEES}",
    "rdn": "CN=Ada Abel",
    "unit": f"OU=backend,OU=engineering,{ad.EMPLOYEES}",
    "unit's new rdn": "OU=platform",
    "other unit": f"OU=sales,{ad.EMPLOYEES}",
    "outside": f"CN=Users,{ad.BASE}",
    "group": f"CN=managers,{ad.EMPLOYEES}",
    "member": f"CN=Cleo Castro,OU=engineering,{ad.EMPLOYEES}",
}
WAYS = [
    "syncrepl",
    "syncrepl below the suffix",
    "time stamps",
    "DirSync",
    "uSNChanged",
    "uSNChanged, whole domain",
]


@pytest.fixture(params=WAYS)
def place(request: pytest.FixtureRequest) -> Place:
    """One for each way of polling."""
    way: str = request.param
    if way in {"DirSync", "uSNChanged", "uSNChanged, whole domain"}:
        samba: Samba = request.getfixturevalue("new_samba")()
        settings = of_samba(samba, base=ad.BASE if "whole" in way else ad.EMPLOYEES)
        if way == "DirSync":
            settings = of_samba(samba, bind_dn=ad.ADMIN, bind_password=ad.ADMIN_PASSWORD)
        return Place(samba, LdapSource(settings), way.partition(",")[0], ACTIVE_DIRECTORY_NAMES)
    slapd: Slapd = request.getfixturevalue("new_slapd")(Settings(syncrepl=way != "time stamps"))
    settings = of_slapd(slapd, base=PEOPLE if "below" in way else SUFFIX)
    return Place(slapd, LdapSource(settings), way.removesuffix(" below the suffix"), OPENLDAP_NAMES)


def change_an_attribute(server: Editor, names: Mapping[str, str]) -> None:
    server.set(names["person"], "mail", "new@example.com")


def rename_a_unit(server: Editor, names: Mapping[str, str]) -> None:
    server.rename(names["unit"], names["unit's new rdn"])


def move_a_person(server: Editor, names: Mapping[str, str]) -> None:
    server.rename(names["person"], names["rdn"], names["other unit"])


def move_a_person_out(server: Editor, names: Mapping[str, str]) -> None:
    server.rename(names["person"], names["rdn"], names["outside"])


def delete_a_person(server: Editor, names: Mapping[str, str]) -> None:
    server.delete(names["person"])


def add_a_member(server: Editor, names: Mapping[str, str]) -> None:
    server.add_values(names["group"], "member", names["member"])


def remove_a_member(server: Editor, names: Mapping[str, str]) -> None:
    member = server.get(names["group"], "member")["member"][0]
    server.remove_values(names["group"], "member", member)


CHANGES = [
    *(change_an_attribute, rename_a_unit, move_a_person, move_a_person_out, delete_a_person),
    *(add_a_member, remove_a_member),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_is_seen_at_the_next_poll_and_then_no_more(
    place: Place, change: Callable[[Editor, Mapping[str, str]], None]
) -> None:
    before = await place.token()
    assert await place.token() == before
    change(place.server, place.names)
    after = await place.token()
    assert after != before
    assert await place.token() == after


async def test_every_one_of_many_changes_is_seen(place: Place) -> None:
    seen = [await place.token()]
    for number in range(4):
        place.server.set(place.names["person"], "mail", f"m{number}@example.com")
        seen.append(await place.token())
    place.server.delete(place.names["person"])
    seen.append(await place.token())
    assert len(set(seen)) == len(seen)


async def test_a_server_that_starts_again_has_not_changed(new_slapd: NewSlapd) -> None:
    slapd = new_slapd()
    source = LdapSource(of_slapd(slapd))
    before = await source.fingerprint()
    slapd.stop()
    with pytest.raises(SourceUnavailable):
        await source.fingerprint()
    slapd.start()
    assert await source.fingerprint() == before


async def test_what_changed_while_a_server_was_away_is_seen(new_slapd: NewSlapd) -> None:
    slapd = new_slapd()
    source = LdapSource(of_slapd(slapd))
    before = await source.fingerprint()
    slapd.delete(f"uid=ada,{PEOPLE}")
    slapd.stop()
    with pytest.raises(SourceUnavailable):
        await source.fingerprint()
    slapd.start()
    assert await source.fingerprint() != before


# -- another server ------------------------------------------------------------------------------------------


async def test_after_a_failover_and_back_the_token_changes(new_slapd: NewSlapd) -> None:
    first, second = new_slapd(), new_slapd()
    source = LdapSource(of_slapd(first, uris=(first.uri, second.uri)))
    tokens = [await source.fingerprint()]
    first.stop()
    tokens += [await source.fingerprint(), await source.fingerprint()]
    first.start()
    tokens += [await source.fingerprint(), await source.fingerprint()]
    assert tokens[1] == tokens[2]
    assert tokens[3] == tokens[4]
    assert len({tokens[0], tokens[1], tokens[3]}) == 3


def of_stand_in(stand_in: StandIn) -> LdapSettings:
    return LdapSettings(
        uris=(stand_in.uri,), base=STAND_IN_BASE, bind_dn=STAND_IN_READER, bind_password="password"
    )


async def test_another_domain_controller_behind_the_same_name_is_another_server(
    new_stand_in: NewStandIn,
) -> None:
    stand_in = new_stand_in(organisation(3))
    source = LdapSource(of_stand_in(stand_in))
    before = await source.fingerprint()
    assert await source.fingerprint() == before
    stand_in.manners.root["dsServiceName"] = [b"CN=NTDS Settings,CN=DC2"]
    assert await source.fingerprint() != before


async def test_a_number_that_goes_backwards_is_a_change(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(3))
    source = LdapSource(of_stand_in(stand_in))
    before = await source.fingerprint()
    stand_in.manners.root["highestCommittedUSN"] = [b"999"]
    assert await source.fingerprint() != before


# -- cookies that are none -----------------------------------------------------------------------------------

FUTURE = b"rid=000,csn=20990101000000.000000Z#000000#000#000000"


@pytest.mark.parametrize("cookie", [b"", b"garbage", b"\xff\x00", FUTURE, b"rid=000,csn=x"])
def test_a_cookie_that_slapd_does_not_know_means_changed(slapd: Slapd, cookie: bytes) -> None:
    settings = of_slapd(slapd)
    with connected(settings) as link:
        watch = Syncrepl.start(link, settings)
        assert watch is not None
        assert not watch.changed(link)
    watch._cookie = cookie
    with connected(settings) as link:
        assert watch.changed(link)


def test_a_cookie_that_active_directory_does_not_know_means_changed(samba: Samba) -> None:
    settings = of_samba(samba, bind_dn=ad.ADMIN, bind_password=ad.ADMIN_PASSWORD)
    with connected(settings) as link:
        watch = DirSync.start(link, settings)
        assert watch is not None
        watch._cookie, watch._usn = b"garbage", None
        assert watch.changed(link)


def test_a_watcher_that_lost_its_place_finds_it_again(slapd: Slapd) -> None:
    watcher = Watcher(of_slapd(slapd))
    first = watcher.poll(Line())
    assert isinstance(watcher._watch, Syncrepl)
    watcher._watch._cookie = b"garbage"
    second = watcher.poll(Line())
    assert second != first
    assert watcher.poll(Line()) == second


# -- which way fits ------------------------------------------------------------------------------------------


def test_an_ordinary_account_of_active_directory_may_not_ask_for_changes(samba: Samba) -> None:
    settings = of_samba(samba)
    with connected(settings) as link:
        assert DirSync.start(link, settings) is None
        assert Usn.start(link, settings) is not None
        assert Syncrepl.start(link, settings) is None


def test_openldap_is_no_active_directory(slapd: Slapd) -> None:
    settings = of_slapd(slapd)
    with connected(settings) as link:
        assert DirSync.start(link, settings) is None
        assert Usn.start(link, settings) is None


async def test_writes_that_touch_nothing_that_is_read_are_no_changes(new_samba: NewSamba) -> None:
    samba = new_samba()
    settings = of_samba(samba, bind_dn=ad.ADMIN, bind_password=ad.ADMIN_PASSWORD)
    source = LdapSource(settings)
    before = await source.fingerprint()
    samba.set(f"CN=Ada Abel,{ad.EMPLOYEES}", "description", "on holiday")
    assert await source.fingerprint() == before


async def test_an_attribute_that_only_the_filter_looks_at_counts(new_samba: NewSamba) -> None:
    samba = new_samba()
    settings = of_samba(
        samba, bind_dn=ad.ADMIN, bind_password=ad.ADMIN_PASSWORD, filter="(!(description=on holiday))"
    )
    source = LdapSource(settings)
    before = await source.fingerprint()
    samba.set(f"CN=Ada Abel,{ad.EMPLOYEES}", "description", "on holiday")
    assert await source.fingerprint() != before


@pytest.mark.parametrize(
    ("search_filter", "attributes"),
    [
        (None, ()),
        ("(!(ou=Domain Controllers))", ("ou",)),
        ("(&(uid=*a*)(| (Mail>=b) (sn~=c=d)))", ("mail", "sn", "uid")),
        ("(memberOf:1.2.840.113556.1.4.1941:=CN=x)", ("memberof",)),
    ],
)
def test_the_attributes_of_a_filter_are_known(search_filter: str | None, attributes: tuple[str, ...]) -> None:
    assert filtered_by(search_filter) == attributes


# -- time stamps ---------------------------------------------------------------------------------------------


def with_stamps(stand_in: StandIn, stamp: bytes | None) -> None:
    stand_in.manners.root.pop("highestCommittedUSN", None)
    for number, entry in enumerate(stand_in.entries):
        stamps = {} if stamp is None else {"modifyTimestamp": [stamp]}
        stand_in.entries[number] = Entry(entry.dn, {**entry.attributes, **stamps})


@pytest.mark.parametrize("stamp", [b"20260101000000Z", None])
async def test_a_second_change_within_a_second_is_seen(new_stand_in: NewStandIn, stamp: bytes | None) -> None:
    stand_in = new_stand_in(organisation(3), Manners(max_page_size=2))
    with_stamps(stand_in, stamp)
    source = LdapSource(of_stand_in(stand_in))
    before = await source.fingerprint()
    assert before.startswith(Sweep.method)
    assert await source.fingerprint() == before
    changed = stand_in.entries[2]
    stand_in.entries[2] = Entry(changed.dn, {**changed.attributes, "mail": [b"new@example.com"]})
    assert await source.fingerprint() != before


async def test_the_order_in_which_a_server_gives_entries_is_no_change(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(3))
    with_stamps(stand_in, b"20260101000000Z")
    source = LdapSource(of_stand_in(stand_in))
    before = await source.fingerprint()
    stand_in.entries.reverse()
    assert await source.fingerprint() == before


async def test_a_poll_that_can_not_see_everything_is_an_error(new_stand_in: NewStandIn) -> None:
    stand_in = new_stand_in(organisation(3))
    source = LdapSource(replace(of_stand_in(stand_in), base=f"OU=gone,{STAND_IN_BASE}"))
    with pytest.raises(SourceInvalid, match="does not exist"):
        await source.fingerprint()


async def test_a_poll_of_nobody_is_an_error() -> None:
    settings = LdapSettings(uris=(f"ldap://127.0.0.1:{free_port()}",), base=SUFFIX)
    with pytest.raises(SourceUnavailable):
        await LdapSource(settings).fingerprint()
