"""The directory for people: what the terminal shows, what `aim check` says, and the file that holds it."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from aim import app, errands
from aim.check.source import directory_findings
from aim.cli import show
from aim.config.root import Config
from aim.config.sources import LdapSource, LdifSource
from aim.directory.entries import Entry, Rules
from aim.directory.flatten import flatten
from aim.directory.model import Directory, Problem, Severity
from aim.directory.roster import Roster
from aim.errors import AimError
from aim.matrix.check import Finding, Verdict
from tests.unit.worlds import a_config, a_directory, a_user


def text_of(directory: Directory) -> list[str]:
    console = Console(file=io.StringIO(), width=300)
    console.print(show.directory(directory))
    assert isinstance(console.file, io.StringIO)
    return [line.strip("│├└─ ") for line in console.file.getvalue().splitlines()]


def test_who_is_disabled_is_said_and_nobody_is_listed_of_an_empty_group() -> None:
    users = [a_user("ann"), replace(a_user("bob"), active=False)]
    lines = text_of(a_directory(users, {"staff": ["ann"], "empty": []}))
    assert [line for line in lines if line.startswith("group ")] == [
        "group empty  0",
        "group staff  1: ann",
    ]
    (bob,) = (line for line in lines if line.startswith("bob"))
    assert bob.startswith("bob (disabled)  ")
    assert sum("(disabled)" in line for line in lines) == 1


def test_a_group_has_its_name_beside_an_id_that_does_not_say_it() -> None:
    directory = a_directory([a_user("ann")], {"b0a1": ["ann"], "cn=Staff,dc=x": []})
    named = [
        replace(group, name={"b0a1": "Engineering", "cn=Staff,dc=x": "staff"}[group.id])
        for group in directory.groups
    ]
    lines = text_of(replace(directory, groups=tuple(named)))
    assert [line for line in lines if line.startswith("group ")] == [
        "group b0a1  Engineering  1: ann",
        "group cn=Staff,dc=x  0",
    ]


# -- aim check -------------------------------------------------------------------------------------------


def said(directory: Directory) -> list[str]:
    return [f"{one.verdict} {one.message}" for one in directory_findings(directory)]


def test_the_numbers_of_a_directory() -> None:
    users = [a_user("ann"), replace(a_user("bob"), active=False)]
    assert said(a_directory(users, {"staff": ["ann"]})) == ["ok 2 users, 1 disabled, 1 group from ldif"]


def people(count: int, **attributes: list[str]) -> Directory:
    """Made with a wrong `attributes.uid`."""
    entries = [
        Entry(f"uid=u{number},dc=x", {"objectclass": ["person"], "uid": [f"u{number}"], **attributes})
        for number in range(count)
    ]
    return flatten(entries, Rules.of(uid="login"), Roster(), source="ldap", name=None)


def test_a_wrong_uid_is_a_failure_in_a_few_lines() -> None:
    count, *problems = directory_findings(people(14))
    assert count == Finding(
        "source",
        Verdict.FAIL,
        "0 users, 0 disabled, 0 groups from ldap, and 14 people who can't be made a user",
        count.remedy,
    )
    assert "source.attributes.uid" in count.remedy
    assert len(problems) == 6
    assert problems[0].message == "uid=u0,dc=x: has no user name (no value of login): skipped"
    assert problems[-1].message == "and 9 more like these"
    assert "aim directory" in problems[-1].remedy


@pytest.mark.parametrize(("count", "more"), [(5, []), (6, ["warn and 1 more like these"])])
def test_problems_that_differ_only_in_names_are_alike(count: int, more: list[str]) -> None:
    found = a_directory(
        ["ann"],
        problems=(
            *(
                Problem(Severity.WARNING, f"p{number}", f"has {number} user names; 'x{number}' is used")
                for number in range(count)
            ),
            Problem(Severity.ERROR, "zoe", "2 users come to this localpart: a; b"),
            Problem(Severity.INFO, "x", "is not said"),
        ),
    )
    lines = said(found)
    assert len(lines) == 7 + len(more)
    assert lines[6 : 6 + len(more)] == more
    assert lines[-1] == "warn zoe: 2 users come to this localpart: a; b"


def test_nobody_at_all_is_a_warning() -> None:
    (finding,) = directory_findings(a_directory([]))
    assert (finding.verdict, finding.message) == (Verdict.WARN, "0 users, 0 disabled, 0 groups from ldif")
    assert finding.remedy


# -- aim directory --ldif --------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Config:
    source = tmp_path / "source.ldif"
    source.write_text("dn: uid=ann,dc=x\nobjectClass: person\nuid: ann\nentryUUID: 1\n\n")
    found = LdifSource.model_validate({"type": "ldif", "path": str(source)})
    return a_config().model_copy(update={"source": found})


@pytest.mark.parametrize(
    ("before", "after"), [(None, 0o600), (0o644, 0o600), (0o666, 0o600), (0o200, 0o200), (0o600, 0o600)]
)
async def test_what_is_written_is_for_its_owner_only(
    config: Config, tmp_path: Path, before: int | None, after: int
) -> None:
    path = tmp_path / "people.ldif"
    if before is not None:
        path.write_text("x" * 10_000)
        path.chmod(before)
    # Whatever the umask lets through.
    umask = os.umask(0)
    try:
        assert await errands.write_ldif(config, path, redact=False) == 1
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o7777 == after
    path.chmod(0o600)
    text = path.read_text()
    assert "uid: ann" in text
    assert "x" * 100 not in text


async def test_what_is_no_file_of_ours_is_written_to_as_it_is(config: Config) -> None:
    mode = Path(os.devnull).stat().st_mode
    assert await errands.write_ldif(config, Path(os.devnull), redact=False) == 1
    assert Path(os.devnull).stat().st_mode == mode


async def test_what_can_not_be_written_is_said(config: Config, tmp_path: Path) -> None:
    with pytest.raises(AimError, match="can't be written: Is a directory"):
        await errands.write_ldif(config, tmp_path, redact=False)


# -- a password that everybody can read ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "warned_of"),
    [
        ({"uri": "ldap://a"}, ["ldap://a"]),
        ({"uri": ["ldaps://a", "LDAP://b"]}, ["LDAP://b"]),
        ({"uri": "ldap://a", "start_tls": True}, []),
        ({"uri": "ldaps://a"}, []),
        ({"uri": "ldap://a", "bind_dn": None, "bind_password": None}, []),
    ],
)
def test_an_unencrypted_password_is_warned_of(options: dict[str, object], warned_of: list[str]) -> None:
    source = {"type": "ldap", "base": "dc=a", "bind_dn": "cn=aim", "bind_password": "s3cret"} | options
    source = {key: value for key, value in source.items() if value is not None}
    found = LdapSource.model_validate(source)
    warnings = app.unprotected(a_config().model_copy(update={"source": found}))
    assert [line.partition(" unencrypted; ")[0] for line in warnings] == [
        f"source.bind_password goes to {uri}" for uri in warned_of
    ]
    assert "s3cret" not in "".join(warnings)
