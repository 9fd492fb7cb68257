"""The LDIF source: a file becomes a Directory, or one of two errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from aim.bridges.ldif import bridge
from aim.bridges.ldif.bridge import LdifSource
from aim.bridges.ldif.parser import parse
from aim.directory.entries import Entry, Rules
from aim.directory.roster import Roster
from aim.errors import SourceInvalid, SourceUnavailable
from aim.ports import Source

PEOPLE = """\
dn: dc=example,dc=com
objectClass: domain
dc: example

dn: uid=alice,dc=example,dc=com
objectClass: inetOrgPerson
entryUUID: 0b4d8f6e-1111-4000-8000-000000000001
uid: alice
cn: Alice

dn: cn=staff,dc=example,dc=com
objectClass: groupOfNames
cn: staff
member: UID=Alice, DC=example, DC=com
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "people.ldif"
    path.write_text(PEOPLE)
    return path


async def test_read(path: Path) -> None:
    source: Source = LdifSource(path, Rules(), None)
    roster = Roster()
    directory = await source.read(roster)
    assert source.type == directory.source == "ldif"
    assert directory.name == "example"
    assert directory.roster is roster
    assert [(user.uid, user.display_name, user.weak_id) for user in directory.users] == [
        ("alice", "Alice", False)
    ]
    (staff,) = directory.find("staff")
    assert roster.localparts(staff.members) == ["alice"]
    assert directory.problems == ()


async def test_the_configured_name_wins(path: Path) -> None:
    assert (await LdifSource(path, Rules(), "Example Inc.").read(Roster())).name == "Example Inc."


async def test_rules_are_passed_on(path: Path) -> None:
    assert [u.uid for u in (await LdifSource(path, Rules.of(uid="cn")).read(Roster())).users] == ["Alice"]


async def test_a_directory_without_people_is_one(path: Path) -> None:
    """Whether that is an error depends on what was there before, which a bridge can't know."""
    path.write_text("dn: dc=example\nobjectClass: domain\ndc: example\n")
    assert (await LdifSource(path, Rules()).read(Roster())).users == ()


async def test_missing(tmp_path: Path) -> None:
    source = LdifSource(tmp_path / "none.ldif", Rules())
    for attempt in (source.read(Roster()), source.fingerprint()):
        with pytest.raises(SourceUnavailable, match=r"none\.ldif can't be read: No such file") as caught:
            await attempt
        assert "source.path" in caught.value.remedy


async def test_not_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(SourceUnavailable, match="is not a file"):
            await LdifSource(path, Rules()).read(Roster())


async def test_not_allowed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> BinaryIO:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # file modes do not stop root, who may run the tests
    with pytest.raises(SourceUnavailable, match="Permission denied"):
        await LdifSource(path, Rules()).read(Roster())


@pytest.mark.parametrize("content", ["", "\n", "version: 1\n", "# nothing here\n"])
async def test_nothing_in_it(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(SourceInvalid, match="holds no entries") as caught:
        await LdifSource(path, Rules()).read(Roster())
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PEOPLE[:-1], "people.ldif:14: the file ends in the middle of a line"),
        (
            PEOPLE + "\nsearch: 2\nresult: 4 Size limit exceeded\n",
            "people.ldif:17: the export ended with an error",
        ),
        (PEOPLE + "\n" + PEOPLE, "people.ldif: two entries have the DN dc=example,dc=com"),
        (PEOPLE + "\ndn: alice\ncn: Alice\n\n", "people.ldif: an entry's DN is no DN: alice"),
    ],
)
async def test_no_good(path: Path, content: str, message: str) -> None:
    path.write_text(content)
    roster = Roster()
    with pytest.raises(SourceInvalid) as caught:
        await LdifSource(path, Rules()).read(roster)
    assert caught.value.message.startswith(str(path.parent / message))
    assert caught.value.remedy
    assert len(roster) == 0


@pytest.mark.parametrize("tail", ["", "\ndn: broken"])
async def test_written_to_while_read(path: Path, monkeypatch: pytest.MonkeyPatch, tail: str) -> None:
    """Whether what was read looks good or not: it is read again."""

    def parse_and_write(stream: BinaryIO, name: str) -> Iterator[Entry]:
        with path.open("a") as other:
            other.write(f"\n{tail}")
        yield from parse(stream, name)

    monkeypatch.setattr(bridge, "parse", parse_and_write)
    with pytest.raises(SourceUnavailable, match="is being written") as caught:
        await LdifSource(path, Rules()).read(Roster())
    assert "read again" in caught.value.remedy


async def test_replaced_while_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename leaves the file that is being read whole; only the fingerprint tells of the new one."""

    def parse_and_replace(stream: BinaryIO, name: str) -> Iterator[Entry]:
        new = path.with_suffix(".new")
        new.write_text("dn: dc=other\nobjectClass: domain\n")
        new.rename(path)
        yield from parse(stream, name)

    source = LdifSource(path, Rules())
    before = await source.fingerprint()
    monkeypatch.setattr(bridge, "parse", parse_and_replace)
    assert [user.uid for user in (await source.read(Roster())).users] == ["alice"]
    assert await source.fingerprint() != before


async def test_fingerprint(path: Path) -> None:
    source = LdifSource(path, Rules())
    before = await source.fingerprint()
    assert await source.fingerprint() == before
    path.write_text(PEOPLE.replace("Alice", "Alina"))
    os.utime(path, ns=(0, 0))
    touched = await source.fingerprint()
    assert touched != before
    path.write_text(PEOPLE + "\n")
    os.utime(path, ns=(0, 0))
    assert await source.fingerprint() not in {before, touched}
