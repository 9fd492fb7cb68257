"""The OpenLDAP recipe and the filters of docs/ldap.md, done to a real server as they are written there."""

from __future__ import annotations

import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from aim.bridges.ldap.bridge import LdapSource
from aim.bridges.ldap.settings import LdapSettings
from aim.directory.entries import Entry, Rules
from aim.directory.model import GroupKind
from tests.contract.ldap import members, of_slapd, read, refused
from tests.servers.slapd import PASSWORD, SUFFIX, NewSlapd, Settings, Slapd

TEXT = (Path(__file__).parents[2] / "docs" / "ldap.md").read_text(encoding="utf-8")
OPENLDAP = TEXT.partition("\n## OpenLDAP\n")[2].partition("\n## ")[0]
ACCOUNT, RIGHTS, OVERLAYS = (
    re.sub(r"(?m)^    ", "", block)
    for block in re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", OPENLDAP)
    if block.startswith("\n    dn: ")
)
OF_PEOPLE, OF_TREE = re.findall(r"(?m)^    filter: (.+)$", TEXT)

DN = f"cn=aim,ou=services,{SUFFIX}"
PEOPLE = f"ou=people,{SUFFIX}"


@pytest.fixture
def strict(new_slapd: NewSlapd) -> Slapd:
    """A server that shows nobody anything, and gives nobody many entries. Its configuration is open."""
    slapd = new_slapd(
        Settings(
            access=("to * by * none",),
            paged_limit=5,
            syncrepl=False,
            lines=("database config", f"rootpw {PASSWORD}"),
        )
    )
    slapd.add(f"ou=services,{SUFFIX}", {"objectClass": "organizationalUnit", "ou": "services"})
    apply(slapd, ACCOUNT.replace("{SSHA}…", PASSWORD), slapd.admin_dn)
    return slapd


def apply(slapd: Slapd, ldif: str, who: str = "cn=config") -> None:
    """Does what LDIF says to an entry or to the configuration."""
    # The tests' server has two databases, and loads this module from the start.
    ours = ldif.replace("{1}mdb", "{2}mdb").replace("olcModuleLoad: syncprov\n", "")
    command = ["ldapmodify", "-a", "-x", "-H", slapd.uri, "-D", who, "-w", PASSWORD]
    done = subprocess.run(command, input=ours, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def by_recipe(slapd: Slapd) -> LdapSettings:
    # The attributes of a configuration that names none: by itself the bridge would also ask for `name`, from
    # which all names are derived in a server's schema (RFC 4519, 2.18), and so get the surname too.
    return of_slapd(slapd, bind_dn=DN, rules=Rules.of(uid="uid", name=("displayName", "cn")))


def sorted_values(entries: list[Entry]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    return sorted(
        (dn, sorted((name, sorted(map(repr, values))) for name, values in attributes.items()))
        for dn, attributes in entries
    )


async def test_with_its_rights_the_account_reads_all_that_the_administrator_does(strict: Slapd) -> None:
    apply(strict, RIGHTS)
    entries = await LdapSource(by_recipe(strict)).entries()
    everything = await LdapSource(replace(by_recipe(strict), bind_dn=strict.admin_dn)).entries()
    assert sorted_values(entries) == sorted_values(everything)
    assert DN not in {dn for dn, _ in entries}
    with strict.connection(DN, PASSWORD) as connection:
        connection.search(SUFFIX, "(userPassword=*)", attributes=["userPassword"])
        assert connection.entries == []


async def test_every_part_of_the_rights_is_needed(strict: Slapd) -> None:
    rules, _, limits = RIGHTS.partition("-\n")
    head, login, reading = re.split(r"(?m)^(?=olcAccess: )", rules)

    error = await refused(by_recipe(strict))
    assert "the server refuses to log us in" in error.message
    assert "by anonymous auth" in error.remedy

    apply(strict, head + login)
    error = await refused(by_recipe(strict))
    assert "does not exist, or the account may not see it" in error.message

    apply(strict, head + reading)
    error = await refused(by_recipe(strict))
    assert "the server's size limit ended the read" in error.message

    apply(strict, head.replace("add: olcAccess\n", "") + limits)
    assert (await read(by_recipe(strict))).users


async def test_with_the_overlays_changes_are_told_and_groups_follow(strict: Slapd) -> None:
    apply(strict, RIGHTS)
    source = LdapSource(by_recipe(strict))
    assert (await source.describe()).method == "time stamps"
    apply(strict, OVERLAYS)
    assert (await source.describe()).method == "syncrepl"

    before = members(await read(by_recipe(strict)), f"cn=managers,ou=groups,{SUFFIX}")
    strict.rename(f"uid=ben,{PEOPLE}", "uid=ben", f"ou=sales,{PEOPLE}")
    # refint does it soon afterwards.
    last = time.monotonic() + 10
    while members(await read(by_recipe(strict)), f"cn=managers,ou=groups,{SUFFIX}") != before:
        assert time.monotonic() < last
    assert before == ["ben"]


async def test_a_filter_for_people_keeps_units_and_groups(new_slapd: NewSlapd) -> None:
    slapd = new_slapd()
    slapd.set(f"uid=ada,{PEOPLE}", "employeeType", "staff")
    whole, filtered = await read(of_slapd(slapd)), await read(of_slapd(slapd, filter=OF_PEOPLE))
    assert [user.localpart for user in filtered.users] == ["ada"]
    assert [group.id for group in filtered.groups] == [group.id for group in whole.groups]


async def test_a_filter_for_the_tree_keeps_people_and_groups(slapd: Slapd) -> None:
    settings = of_slapd(slapd)
    whole, filtered = await read(settings), await read(replace(settings, filter=OF_TREE))
    assert filtered.users == whole.users
    left_out = {group.id for group in whole.groups} - {group.id for group in filtered.groups}
    assert left_out == {f"ou=groups,{SUFFIX}"}
    assert [group.id for group in filtered.groups if group.kind is GroupKind.GROUP]
