"""The flattening rules: tables of small trees, and properties over generated ones."""

from __future__ import annotations

import hashlib
import pickle
import uuid
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from aim.directory.describe import to_json
from aim.directory.entries import Entry, Rules, Value, guid, sid, stable_id
from aim.directory.flatten import flatten, key_of
from aim.directory.model import Directory, Problem, Severity
from aim.directory.nesting import closure
from aim.directory.roster import NOBODY, Roster
from aim.errors import SourceInvalid

BASE = "dc=example,dc=com"


def entry(dn: str, classes: str, **attributes: Value | list[Value]) -> Entry:
    """An entry; values may be text, as hypothesis and people write it, or bytes, as servers send them."""
    values = {name.lower(): tuple(v) if isinstance(v, list) else (v,) for name, v in attributes.items()}
    return Entry(dn, {"objectclass": tuple(classes.split()), **values})


def person(name: str, under: str = f"ou=people,{BASE}", **attributes: Value | list[Value]) -> Entry:
    given_or_default: dict[str, Any] = {
        "uid": name,
        "cn": name.title(),
        "entryUUID": f"id-{name}",
        **attributes,
    }
    return entry(
        f"uid={name},{under}",
        "top person inetOrgPerson",
        **{key: value for key, value in given_or_default.items() if value != []},
    )


def group(
    name: str, *members: str, under: str = f"ou=groups,{BASE}", **attributes: Value | list[Value]
) -> Entry:
    listed: dict[str, Any] = {"member": list(members)} if members else {}
    return entry(f"cn={name},{under}", "groupOfNames", cn=name, **listed, **attributes)


def unit(name: str, under: str = BASE) -> Entry:
    return entry(f"ou={name},{under}", "organizationalUnit", ou=name)


def dn_of(name: str) -> str:
    return f"uid={name},ou=people,{BASE}"


def flat(*entries: Entry, rules: Rules | None = None, name: str | None = "Example") -> Directory:
    return flatten(entries, rules or Rules(), Roster(), source="ldif", name=name)


def members(directory: Directory, external_id: str) -> list[str]:
    (found,) = directory.find(external_id)
    return directory.roster.localparts(found.members)


def messages(directory: Directory, severity: Severity) -> dict[str, str]:
    return {p.subject: p.message for p in directory.problems if p.severity is severity}


# --- the example of the documentation


def test_company() -> None:
    directory = flat(
        entry("dc=company", "domain", dc="company"),
        entry("cn=alfred,dc=company", "person", uid="alfred"),
        entry("ou=engineering,dc=company", "organizationalUnit", ou="engineering"),
        entry("cn=barbara,ou=engineering,dc=company", "person", uid="barbara"),
        entry(
            "cn=moderators,ou=engineering,dc=company", "group", member="cn=charlie,ou=engineering,dc=company"
        ),
        entry("cn=charlie,ou=engineering,dc=company", "person", uid="charlie"),
    )
    assert members(directory, "dc=company") == ["alfred", "barbara", "charlie"]
    assert members(directory, "ou=Engineering,dc=company") == ["barbara", "charlie"]
    assert members(directory, "CN=moderators, OU=engineering, DC=company") == ["charlie"]
    assert members(directory, "Moderators") == ["charlie"]
    assert directory.find("engineering") == ()  # only groups go by their CN
    assert [g.kind.value for g in directory.groups] == ["group", "domain", "ou"]
    assert directory.roster.localparts(directory.everyone) == ["alfred", "barbara", "charlie"]


# --- stable ids


@pytest.mark.parametrize(
    ("attributes", "configured", "expected"),
    [
        ({"entryuuid": b"0B4D8F6E-1111-4000-8000-000000000001"}, (), "0b4d8f6e-1111-4000-8000-000000000001"),
        ({"entryuuid": b"e", "objectguid": bytes(range(16)), "nsuniqueid": b"n"}, (), "e"),
        ({"objectguid": bytes(range(16))}, (), "03020100-0504-0706-0809-0a0b0c0d0e0f"),
        (
            {"objectguid": b"{03020100-0504-0706-0809-0A0B0C0D0E0F}"},
            (),
            "03020100-0504-0706-0809-0a0b0c0d0e0f",
        ),
        ({"objectguid": b"short", "ipauniqueid": b"ABC"}, (), "abc"),
        ({"nsuniqueid": b"N-1", "ipauniqueid": b"i"}, (), "n-1"),
        ({"entryuuid": b"e", "employeenumber": b" 7A "}, ("employeenumber",), "7A"),
        ({"entryuuid": b"e"}, ("employeenumber",), "e"),
        ({"entryuuid": b"e", "blob": b"\xff\x00"}, ("blob",), "ff00"),
        ({"objectsid": b"S-1-5-21-1-2-3-500"}, ("objectsid",), "S-1-5-21-1-2-3-500"),
        ({"employeenumber": b" "}, ("employeenumber",), None),
        ({}, (), None),
    ],
)
def test_stable_id(
    attributes: Mapping[str, bytes], configured: tuple[str, ...], expected: str | None
) -> None:
    assert stable_id({name: (value,) for name, value in attributes.items()}, configured) == expected


@given(st.binary(min_size=16, max_size=16))
def test_guid_is_mixed_endian(raw: bytes) -> None:
    assert guid(raw) == str(uuid.UUID(bytes_le=raw)) == guid(str(uuid.UUID(bytes_le=raw)))


def test_sid() -> None:
    raw = bytes.fromhex("010500000000000515000000010000000200000003000000f4010000")
    assert sid(raw) == sid(b"s-1-5-21-1-2-3-500") == "S-1-5-21-1-2-3-500"
    assert sid(raw[:-1]) is None
    assert sid("S-1-x") is None


def test_a_dn_is_a_weak_id() -> None:
    directory = flat(person("alice", entryUUID=[]), person("bob"))
    assert [(u.id, u.weak_id) for u in directory.users] == [("id-bob", False), (dn_of("alice"), True)]
    assert "1 users have no stable id" in messages(directory, Severity.INFO)["Example"]


# --- who is a person


@pytest.mark.parametrize(
    ("classes", "attributes"),
    [
        ("top person organizationalPerson user computer", {}),
        ("top person organizationalPerson user computer msDS-GroupManagedServiceAccount", {}),
        ("top person organizationalPerson contact", {}),
        ("top person organizationalPerson user", {"userAccountControl": "2080"}),  # trust between domains
        ("top organizationalRole simpleSecurityObject", {}),
        ("top device", {}),
    ],
)
def test_no_people(classes: str, attributes: dict[str, Value]) -> None:
    directory = flat(
        entry(f"cn=x,{BASE}", classes, sAMAccountName="x$", **attributes), group("g", f"cn=x,{BASE}")
    )
    assert directory.users == ()
    assert directory.unresolved == frozenset()
    assert directory.problems == ()  # such a member is nothing to report


@pytest.mark.parametrize("classes", ["person", "INETORGPERSON", "user", "account", "posixAccount"])
def test_people(classes: str) -> None:
    assert [u.uid for u in flat(entry("cn=x", classes, uid="x")).users] == ["x"]


@pytest.mark.parametrize(
    ("classes", "kind"),
    [
        ("group", "group"),
        ("groupOfNames", "group"),
        ("groupOfUniqueNames", "group"),
        ("groupOfMembers", "group"),
        ("posixGroup", "group"),
        ("organizationalUnit", "ou"),
        ("domain", "domain"),
        ("domainDNS", "domain"),
        ("organization dcObject", "domain"),
        ("organizationalUnit dcObject", "domain"),
    ],
)
def test_containers(classes: str, kind: str) -> None:
    assert [g.kind for g in flat(entry("ou=x", classes)).groups] == [kind]


def test_a_user_who_is_a_group_as_well() -> None:
    both = entry(
        dn_of("alice"), "inetOrgPerson posixAccount posixGroup", uid="alice", cn="alice", memberUid="bob"
    )
    directory = flat(both, person("bob"), group("all", dn_of("alice")))
    assert [u.uid for u in directory.users] == ["bob", "alice"]
    assert members(directory, dn_of("alice")) == ["alice", "bob"]
    assert members(directory, "all") == ["alice", "bob"]


def test_entries_without_object_class() -> None:
    directory = flat(Entry("cn=a", {"uid": ("a",)}), Entry("cn=b", {"objectclass": ()}), person("alice"))
    assert [u.uid for u in directory.users] == ["alice"]
    assert messages(directory, Severity.WARNING)["Example"].startswith("2 entries have no objectClass")


# --- user attributes


def test_attributes() -> None:
    directory = flat(
        person(
            "Alice",
            uid=b" Alice ",
            displayName=[b"Bea", b"Alice M\xc3\xbcller"],
            mail=["B@Example.COM", " a@example.com", "b@example.com", "", "nobody", "a@b@c", "Ä@EXAMPLE.com"],
        )
    )
    (user,) = directory.users
    assert (user.uid, user.localpart, user.display_name) == ("Alice", "alice", "Alice Müller")
    assert user.emails == ("a@example.com", "b@example.com", "ä@example.com")
    assert user.dn == dn_of("Alice")


def test_rules_name_the_attributes() -> None:
    rules = Rules.of(uid="sAMAccountName", name=["description", "CN"], mail="proxy", id="employeeNumber")
    assert rules == Rules(("samaccountname",), ("description", "cn"), ("proxy",), ("employeenumber",))
    assert Rules.of() == Rules()
    directory = flat(
        person("alice", sAMAccountName="AL", employeeNumber="7", proxy="x@example.com"), rules=rules
    )
    (user,) = directory.users
    assert (user.id, user.uid, user.display_name, user.emails) == ("7", "AL", "Alice", ("x@example.com",))
    assert {"samaccountname", "description", "proxy", "employeenumber", "member", "entryuuid"} <= {
        *rules.attributes
    }
    assert list(rules.attributes) == sorted(set(rules.attributes))


def test_no_display_name() -> None:
    assert flat(person("alice", cn=[])).users[0].display_name is None


@pytest.mark.parametrize(
    ("attribute", "value", "active"),
    [
        ("userAccountControl", "512", True),
        ("userAccountControl", "514", False),
        ("userAccountControl", "many", True),
        ("nsAccountLock", "TRUE", False),
        ("nsAccountLock", "true", False),
        ("nsAccountLock", "FALSE", True),
        ("pwdAccountLockedTime", "000001010000Z", False),
        ("pwdAccountLockedTime", "20240101120000Z", True),  # too many wrong passwords: for a while only
    ],
)
def test_disabled(attribute: str, value: str, active: bool) -> None:
    directory = flat(unit("people"), person("alice", **{attribute: value}), group("g", dn_of("alice")))
    assert [u.active for u in directory.users] == [active]
    expected = ["alice"] if active else []
    assert members(directory, "g") == members(directory, f"ou=people,{BASE}") == expected
    assert directory.roster.localparts(directory.everyone) == expected
    assert directory.problems == ()


@pytest.mark.parametrize(
    ("values", "active"),
    [([], True), ("TRUE", True), ("1", True), ("FALSE", False), ("0", False), (" No ", False), ("", True)],
)
def test_disabled_by_a_configured_attribute(values: Value | list[Value], active: bool) -> None:
    rules = Rules.of(enabled="accountEnabled")
    assert "accountenabled" in rules.attributes
    assert [user.active for user in flat(person("alice", accountEnabled=values), rules=rules).users] == [
        active
    ]
    # What the server itself marks counts as well.
    both = person("bob", accountEnabled="TRUE", nsAccountLock="TRUE")
    assert [user.active for user in flat(both, rules=rules).users] == [False]


def test_a_picture_is_known_by_its_hash() -> None:
    rules = Rules.of(avatar=["jpegPhoto", "thumbnailPhoto"])
    assert {"jpegphoto", "thumbnailphoto"} <= set(rules.attributes)
    ann = person("ann", thumbnailPhoto=b"\xff\xd8one", jpegPhoto=[b"\xff\xd8two", b"\xff\xd8three"])
    bob, cid = person("bob", thumbnailPhoto=b"\xff\xd8one"), person("cid", jpegPhoto=b"")
    found = {user.localpart: user.avatar for user in flat(ann, bob, cid, rules=rules).users}
    # Of several pictures always the same one, whatever their order.
    assert found["ann"] == hashlib.sha256(b"\xff\xd8three").hexdigest()
    assert found["bob"] == hashlib.sha256(b"\xff\xd8one").hexdigest()
    assert found["cid"] is None
    assert flat(ann).users[0].avatar is None


# --- user names that are no good


@pytest.mark.parametrize(
    ("uid", "message"),
    [
        ([], "has no user name (no value of uid or samaccountname): skipped"),
        ("  ", "has no user name"),
        (b"m\xfcller", "its user name is not UTF-8"),
        ("x" * 201, "a localpart of 201 characters"),
        ("ü" * 34, "a localpart of 204 characters"),
    ],
)
def test_unusable_user_names(uid: Value | list[Value], message: str) -> None:
    directory = flat(person("alice", uid=uid), person("bob"), group("g", dn_of("alice"), dn_of("bob")))
    assert [u.uid for u in directory.users] == ["bob"]
    assert directory.unresolved == {"id-alice"}
    assert members(directory, "g") == ["bob"]
    (problem,) = directory.problems
    assert problem.severity is Severity.WARNING
    assert problem.subject == dn_of("alice")
    assert message in problem.message


def test_the_id_of_an_unusable_user_may_be_the_dn() -> None:
    assert flat(person("Alice", uid=[], entryUUID=[])).unresolved == {dn_of("alice")}


def test_several_user_names() -> None:
    directory = flat(person("alice", uid=["zoe", "Alice", "bea"]), group("g", memberUid=["bea", "zoe"]))
    assert [u.uid for u in directory.users] == ["Alice"]
    assert members(directory, "g") == ["alice"]
    assert "3 user names; 'Alice'" in messages(directory, Severity.WARNING)[dn_of("alice")]


def test_two_users_at_one_localpart() -> None:
    directory = flat(
        unit("people"),
        person("Eve", entryUUID="id-1"),
        person("eve", under=f"ou=other,{BASE}", entryUUID="id-2"),
        person("bob"),
        group("g", dn_of("Eve"), dn_of("bob"), memberUid="eve"),
    )
    assert [u.uid for u in directory.users] == ["bob"]
    assert directory.roster.localparts(directory.contested) == ["eve"]
    assert directory.unresolved == {"id-1", "id-2"}
    assert members(directory, "g") == members(directory, f"ou=people,{BASE}") == ["bob"]
    assert directory.roster.localparts(directory.everyone) == ["bob"]
    (problem,) = directory.problems
    assert problem == Problem(
        Severity.ERROR,
        "eve",
        f"2 users come to this localpart: {dn_of('Eve')}; uid=eve,ou=other,{BASE}. None of them is touched",
    )


def test_two_entries_with_one_id() -> None:
    directory = flat(person("alice", entryUUID="same"), person("bob", entryUUID="SAME"), person("carol"))
    assert [u.uid for u in directory.users] == ["carol"]
    assert directory.roster.localparts(directory.contested) == ["alice", "bob"]
    assert directory.unresolved == {"same"}
    message = messages(directory, Severity.ERROR)["same"]
    assert dn_of("alice") in message
    assert dn_of("bob") in message


def test_an_id_shared_with_somebody_unusable() -> None:
    directory = flat(person("alice", entryUUID="same"), person("bob", entryUUID="same", uid=[]))
    assert directory.users == ()
    assert directory.unresolved == {"same"}
    assert directory.roster.localparts(directory.contested) == ["alice"]
    assert "2 entries have this id" in messages(directory, Severity.ERROR)["same"]


def test_who_shares_a_localpart_with_a_doubtful_user_is_doubtful_too() -> None:
    directory = flat(
        person("alice", entryUUID="same"),
        person("bob", entryUUID="same"),
        person("bob", under=BASE, entryUUID="id-3"),
    )
    assert directory.users == ()
    assert directory.unresolved == {"same", "id-3"}
    assert directory.roster.localparts(directory.contested) == ["alice", "bob"]


def test_long_lists_of_names_are_cut() -> None:
    directory = flat(*[person("eve", under=f"ou=o{n},{BASE}", entryUUID=f"id-{n}") for n in range(7)])
    (problem,) = directory.problems
    assert "7 users" in problem.message
    assert problem.message.count("uid=eve") == 5
    assert "and 2 more" in problem.message


# --- the tree


def test_below_counts_where_entries_between_are_missing() -> None:
    directory = flat(
        entry(BASE, "domain", dc="example"),
        unit("people"),
        person("alice", under=f"ou=hidden,cn=too,ou=people,{BASE}"),
        person("bob", under=f"ou=elsewhere,{BASE}"),
    )
    assert members(directory, BASE) == ["alice", "bob"]
    assert members(directory, f"ou=people,{BASE}") == ["alice"]


def test_a_name_that_only_looks_like_below_is_not() -> None:
    directory = flat(unit("people"), person("alice", under=rf"ou=x\,ou=people,{BASE}"))
    assert members(directory, f"ou=people,{BASE}") == []


def test_members_of_a_group_are_not_in_the_unit_it_lies_in() -> None:
    directory = flat(unit("groups"), group("g", dn_of("alice")), person("alice"))
    assert members(directory, f"ou=groups,{BASE}") == []
    assert members(directory, "g") == ["alice"]


def test_a_group_holds_who_is_below_it() -> None:
    directory = flat(group("g"), person("alice", under=f"cn=g,ou=groups,{BASE}"))
    assert members(directory, "g") == ["alice"]


def test_containers_without_people_are_there() -> None:
    directory = flat(group("g"), unit("people"), entry(BASE, "domain"))
    assert [g.members for g in directory.groups] == [NOBODY] * 3
    assert directory.find("missing") == ()


# --- members


@pytest.mark.parametrize(
    "spelling",
    [
        "uid=doe\\, jane+cn=x,ou=people,dc=example,dc=com",
        "UID=Doe\\2C Jane+CN=X,OU=People,DC=Example,DC=Com",
        "cn=x + uid=Doe\\,  Jane , ou=people , dc=example , dc=com",
        'userId="doe, jane"+commonName=X;ou=people;dc=example;dc=com',
    ],
)
@pytest.mark.parametrize("attribute", ["member", "uniqueMember"])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_members_in_any_spelling(spelling: str, attribute: str, as_bytes: bool) -> None:
    jane = entry(r"cn=X+uid=Doe\, Jane,ou=people,dc=example,dc=com", "person", uid="jane")
    value: Value = spelling.encode() if as_bytes else spelling
    listing = entry(f"cn=g,{BASE}", "groupOfNames", cn="g", **{attribute: value})
    directory = flat(jane, listing)
    assert members(directory, "g") == ["jane"]


@pytest.mark.parametrize("suffix", ["#'0101'B", "#''B", " # '1'B", ""])
def test_unique_member_with_an_identifier(suffix: str) -> None:
    directory = flat(person("alice"), group("g", uniqueMember=dn_of("Alice") + suffix))
    assert members(directory, "g") == ["alice"]


def test_member_uid() -> None:
    directory = flat(
        person("Alice"),
        person("bob"),
        person("carol", userAccountControl="2"),
        person("dave", uid=["dave", "shared"]),
        person("erin", uid=["erin", "shared"]),
        person("frank", uid=["a-frank", "bob"]),
        group("g", memberUid=["alice", b"bob", "carol", "nobody", "shared", "\ud800"]),
    )
    assert members(directory, "g") == ["alice", "bob"]
    assert messages(directory, Severity.INFO)["Example"] == (
        f"3 members of 1 group name nobody who was read: nobody; shared; \ufffd (in cn=g,ou=groups,{BASE})"
    )


def test_member_uid_means_uid_even_where_users_go_by_another_name() -> None:
    rules = Rules.of(uid="sAMAccountName")
    directory = flat(person("alice", sAMAccountName="al"), group("g", memberUid="alice"), rules=rules)
    assert members(directory, "g") == ["al"]


def test_nested_groups_and_containers() -> None:
    directory = flat(
        unit("people"),
        person("alice"),
        person("bob", under=BASE),
        person("carol", under=BASE),
        group("outer", f"CN=Middle, ou=groups,{BASE}", f"uid=carol,{BASE}"),
        group("middle", f"cn=inner,ou=groups,{BASE}", f"OU=People,{BASE}"),
        group("inner", f"uid=bob,{BASE}"),
    )
    assert members(directory, "outer") == ["alice", "bob", "carol"]
    assert members(directory, "middle") == ["alice", "bob"]
    assert members(directory, "inner") == ["bob"]


def test_cycles() -> None:
    directory = flat(
        person("alice"),
        person("bob"),
        group("a", f"cn=b,ou=groups,{BASE}", dn_of("alice")),
        group("b", f"cn=c,ou=groups,{BASE}"),
        group("c", f"cn=a,ou=groups,{BASE}", f"cn=c,ou=groups,{BASE}", dn_of("bob")),
        group("watcher", f"cn=b,ou=groups,{BASE}"),
    )
    for name in ("a", "b", "c", "watcher"):
        assert members(directory, name) == ["alice", "bob"]


def test_a_chain_of_groups_of_any_length() -> None:
    count = 20_000
    chain = [group(f"g{n}", f"cn=g{n + 1},ou=groups,{BASE}") for n in range(count)]
    directory = flat(*chain, group(f"g{count}", dn_of("alice")), person("alice"))
    assert members(directory, "g0") == ["alice"]


def test_members_who_were_not_read_are_summed_up() -> None:
    directory = flat(
        person("alice"),
        group("a", dn_of("alice"), "cn=elsewhere,dc=example,dc=org", "no dn at all"),
        *[group(f"g{n}", dn_of("gone")) for n in range(5)],
    )
    assert members(directory, "a") == ["alice"]
    assert directory.problems == (
        Problem(
            Severity.INFO,
            "Example",
            f"7 members of 6 groups name nobody who was read: cn=elsewhere,dc=example,dc=org; no dn at all; "
            f"{dn_of('gone')} (in "
            + "".join(f"cn={name},ou=groups,{BASE}; " for name in ("a", "g0", "g1"))
            + "…)",
        ),
    )


def test_one_member_who_was_not_read_is_one() -> None:
    directory = flat(group("a", dn_of("gone")))
    assert messages(directory, Severity.INFO)["Example"] == (
        f"1 member of 1 group names nobody who was read: {dn_of('gone')} (in cn=a,ou=groups,{BASE})"
    )


@pytest.mark.parametrize("order", [1, -1])
def test_the_same_few_unread_members_are_named_whatever_the_servers_order(order: int) -> None:
    gone = [dn_of(f"gone{n}") for n in range(5)][::order]
    assert messages(flat(group("a", *gone)), Severity.INFO)["Example"].endswith(
        f": {dn_of('gone0')}; {dn_of('gone1')}; {dn_of('gone2')}; … (in cn=a,ou=groups,{BASE})"
    )


def test_primary_group() -> None:
    """Active Directory does not list a user in their primary group."""

    def security_id(last: int) -> bytes:
        return bytes.fromhex("010500000000000515000000010000000200000003000000") + last.to_bytes(4, "little")

    directory = flat(
        group("Domain Users", objectSid=security_id(513)),
        group("Other", objectSid="S-1-5-21-9-9-9-513"),
        person("alice", objectSid=security_id(1000), primaryGroupID="513"),
        person("bob", objectSid="S-1-5-21-1-2-3-1001", primaryGroupID="513"),
        person("carol", objectSid=security_id(1002), primaryGroupID="514"),
        person("dave", objectSid=security_id(1003), primaryGroupID="513", userAccountControl="514"),
        person("erin", primaryGroupID="513"),
        group("outer", f"cn=Domain Users,ou=groups,{BASE}"),
    )
    assert members(directory, "domain users") == members(directory, "outer") == ["alice", "bob"]
    assert members(directory, "Other") == []


# --- keys and names


def test_groups_that_share_a_cn() -> None:
    directory = flat(
        group("Staff", dn_of("alice")),
        group("staff", under=BASE),
        entry(f"cn=x,{BASE}", "group", cn=["X", "Extra  Name"]),
        person("alice"),
    )
    assert [g.id for g in directory.find(" STAFF ")] == [f"cn=Staff,ou=groups,{BASE}", f"cn=staff,{BASE}"]
    assert [g.id for g in directory.find("extra name")] == [f"cn=x,{BASE}"]
    assert [g.id for g in directory.find(f"cn=staff,{BASE}")] == [f"cn=staff,{BASE}"]


def test_a_group_without_cn_goes_by_its_rdn() -> None:
    directory = flat(entry(f"cn=Only Here,{BASE}", "group"))
    assert [g.name for g in directory.find("only here")] == ["only here"]


def test_keys() -> None:
    assert key_of("CN=A, dc=x") == "cn=a,dc=x"
    assert key_of("  The   Managers ") == key_of("the managers") == "cn:the managers"
    assert key_of("a = b, c") == "cn:a = b, c"  # has an equals sign, but is no DN
    assert pickle.loads(pickle.dumps(key_of)) is key_of
    assert flat(person("alice")).key_of is key_of


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        (
            [entry(BASE, "organization dcObject", o="Example Inc.", dc="example"), unit("people")],
            "Example Inc.",
        ),
        ([entry(BASE, "domain", dc="example"), unit("people")], "example"),
        ([unit("people"), unit("groups"), unit("inner", f"ou=people,{BASE}")], "groups"),
        ([entry("ou=Just Here,dc=x", "organizationalUnit")], "just here"),
        ([group("g")], "ldif"),
        ([], "ldif"),
    ],
)
def test_name_of_the_directory(entries: list[Entry], name: str) -> None:
    assert flat(*entries, name=None).name == name
    assert flat(*entries, name="Given").name == "Given"


# --- what is no directory


def test_one_dn_twice_is_an_error() -> None:
    with pytest.raises(SourceInvalid, match="two entries have the DN") as caught:
        flat(person("alice"), person("ALICE"))
    assert caught.value.remedy


def test_an_entry_without_a_real_dn_is_an_error() -> None:
    with pytest.raises(SourceInvalid, match="is no DN"):
        flat(entry("alice", "person", uid="alice"))


# --- as JSON


def test_to_json() -> None:
    directory = flat(person("Alice", mail="a@example.com"), person("bob", uid=[]), group("g", dn_of("alice")))
    assert to_json(directory) == {
        "users": [
            {
                "id": "id-Alice".lower(),
                "uid": "Alice",
                "localpart": "alice",
                "display_name": "Alice",
                "emails": ["a@example.com"],
                "active": True,
                "dn": dn_of("Alice"),
            }
        ],
        "groups": [{"id": f"cn=g,ou=groups,{BASE}", "kind": "group", "name": "g", "members": ["alice"]}],
        "problems": [
            {
                "severity": "warning",
                "subject": dn_of("bob"),
                "message": "has no user name (no value of uid or samaccountname): skipped",
            }
        ],
    }


# --- properties

names = st.sampled_from(["a", "B", "b", "c", "ü"])
places = st.sampled_from([BASE, f"ou=people,{BASE}", f"OU=x,ou=people,{BASE}", f"cn=a,ou=groups,{BASE}"])
people = st.builds(
    person,
    names,
    places,
    uid=st.lists(names, max_size=2),
    entryUUID=st.lists(st.sampled_from(["1", "2", "3", "4"]), max_size=1),
    userAccountControl=st.sampled_from(["512", "514"]),
)
groups = st.builds(
    lambda name, listed, uids: group(name, *listed, memberUid=uids),
    names,
    st.lists(
        st.builds("{}={},{}".format, st.sampled_from(["uid", "cn", "OU"]), names, places)
        | names.map(lambda name: f"CN={name}, ou=groups, {BASE}"),
        max_size=4,
    ),
    st.lists(names, max_size=2),
)
units = st.builds(unit, st.sampled_from(["people", "x"]), st.sampled_from([BASE, f"ou=people,{BASE}"]))


def key(item: Entry) -> str:
    return key_of(item.dn)


trees = st.lists(people | groups | units, max_size=14, unique_by=key)


@given(trees, st.integers())
def test_input_order_does_not_matter(entries: list[Entry], seed: int) -> None:
    random = Random(seed)
    shuffled = [
        Entry(dn, {name: tuple(random.sample(values, len(values))) for name, values in attributes.items()})
        for dn, attributes in random.sample(entries, len(entries))
    ]
    one, other = flat(*entries, name=None), flat(*shuffled, name=None)
    assert to_json(one) == to_json(other)
    assert (one.users, one.unresolved, one.keys, one.name) == (
        other.users,
        other.unresolved,
        other.keys,
        other.name,
    )
    assert one.roster.localparts(one.contested) == other.roster.localparts(other.contested)
    assert one.roster.localparts(one.everyone) == other.roster.localparts(other.everyone)


@given(trees)
def test_what_holds_for_every_directory(entries: list[Entry]) -> None:
    directory = flat(*entries)
    active = directory.roster.people(u.localpart for u in directory.users if u.active)
    assert directory.everyone == active
    assert not directory.contested & directory.roster.people(u.localpart for u in directory.users)
    assert not directory.unresolved & {u.id for u in directory.users}
    assert (
        len({u.localpart for u in directory.users})
        == len({u.id for u in directory.users})
        == len(directory.users)
    )
    assert all(g.members <= active for g in directory.groups)
    assert [u.id for u in directory.users] == sorted(u.id for u in directory.users)
    assert [g.id for g in directory.groups] == sorted(g.id for g in directory.groups)
    assert list(directory.problems) == sorted(directory.problems)
    for found in directory.groups:
        assert directory.find(found.id) == (found,)


@given(st.data())
def test_closure_is_reachability(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 8))
    edges = data.draw(
        st.lists(st.lists(st.integers(0, max(size - 1, 0)), max_size=4), min_size=size, max_size=size)
    )
    complete = closure([BitMap([node]) for node in range(size)], edges)
    for node in range(size):
        reached, work = {node}, [node]
        while work:
            for successor in edges[work.pop()]:
                if successor not in reached:
                    reached.add(successor)
                    work.append(successor)
        assert set(complete[node]) == reached
