"""Writing entries as LDIF, and without names: what is read back is the same, and nobody is in it."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from aim.bridges.ldif.parser import parse
from aim.bridges.ldif.writer import to_ldif
from aim.demo.organisation import harbour_works
from aim.directory.entries import Entry, Rules
from aim.directory.flatten import flatten
from aim.directory.redact import in_use, redacted
from aim.directory.roster import Roster

RULES = Rules()
VALUES = st.lists(st.binary(max_size=200), min_size=1, max_size=3)
ENTRIES = st.lists(
    st.builds(
        lambda number, cn, member: Entry(
            f"cn={number},dc=x", {"cn": cn, "member": member, "objectclass": [b"group"]}
        ),
        st.integers(0, 10**40),
        VALUES,
        VALUES,
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda entry: entry.dn,
)


def as_bytes(entry: Entry) -> tuple[str, dict[str, list[bytes]]]:
    values = {
        name: [value.encode() if isinstance(value, str) else bytes(value) for value in values]
        for name, values in entry.attributes.items()
    }
    return entry.dn, values


def read_back(entries: list[Entry]) -> list[Entry]:
    return list(parse(io.BytesIO(b"".join(to_ldif(entries))), "test.ldif"))


@given(ENTRIES)
def test_what_is_written_is_read_back(entries: list[Entry]) -> None:
    assert [as_bytes(entry) for entry in read_back(entries)] == [as_bytes(entry) for entry in entries]


def test_lines_are_folded_and_only_safe_text_is_plain() -> None:
    entry = Entry("cn=ö,dc=x", {"cn": ["ö"], "description": ["a" * 200], "sn": [" x", "x ", ":x", "<x", ""]})
    written = b"".join(to_ldif([entry]))
    assert max(map(len, written.splitlines())) <= 76
    assert written.isascii()
    assert as_bytes(read_back([entry])[0]) == as_bytes(entry)


def organisation() -> list[Entry]:
    return list(parse(io.BytesIO(harbour_works().ldif().encode()), "harbour.ldif"))


def test_only_attributes_in_use_are_kept() -> None:
    entry = Entry("uid=a,dc=x", {"objectclass": ["person"], "uid": ["a"], "userpassword": ["secret"]})
    assert list(in_use([entry], RULES)) == [Entry("uid=a,dc=x", {"objectclass": ["person"], "uid": ["a"]})]
    assert "userpassword" not in next(redacted([entry], RULES)).attributes


def test_redacted_it_has_the_same_shape_and_no_name() -> None:
    entries = organisation()
    made = read_back(list(redacted(entries, RULES)))
    names = {name.lower() for person in harbour_works().people for name in person.name.split()}
    text = b"".join(to_ldif(made)).decode().lower()
    assert not [name for name in names if name in text]
    assert "harbour" not in text
    before = flatten(entries, RULES, Roster(), source="ldif", name="x")
    after = flatten(made, RULES, Roster(), source="ldif", name="x")
    assert [user.id for user in after.users] == [user.id for user in before.users]
    assert len({user.localpart for user in after.users}) == len(before.users)
    assert sorted(len(group.members) for group in after.groups) == sorted(
        len(group.members) for group in before.groups
    )
    assert [problem.severity for problem in after.problems] == [
        problem.severity for problem in before.problems
    ]


def test_equal_names_stay_equal_however_they_are_spelled() -> None:
    person = Entry("uid=Ann\\2C B,ou=x", {"objectclass": ["person"], "uid": ["Ann, B"]})
    group = Entry(
        "cn=g",
        {
            "objectclass": ["groupOfUniqueNames"],
            "uniquemember": ["UID=ann\\, b , OU=X#'0101'B", "broken"],
            "memberuid": ["ANN, B"],
        },
    )
    one, two = redacted([person, group], RULES)
    assert two.attributes["uniquemember"][0] == f"{one.dn}#'0101'B"
    assert two.attributes["memberuid"] == one.attributes["uid"]


def test_what_disables_an_account_stays_readable() -> None:
    rules = Rules.of(enabled="accountActive")
    entry = Entry("uid=ann,dc=example", {"uid": ["ann"], "accountactive": ["FALSE"]})
    [made] = redacted([entry], rules)
    assert made.attributes["accountactive"] == ["FALSE"]
    assert made.attributes["uid"] != ["ann"]
