"""Journeys from real LDAP servers to a real homeserver: what changes there is seen at the next poll."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.e2e.kit import Command, Room, Stage, until
from tests.servers.samba import ADMIN_PASSWORD, EMPLOYEES, NewSamba, Samba
from tests.servers.slapd import PASSWORD, READER, SUFFIX, NewSlapd, Slapd

pytestmark = pytest.mark.e2e

PEOPLE = f"ou=people,{SUFFIX}"
SALES = f"ou=sales,{PEOPLE}"
Expected = Mapping[str, tuple[str, str]]
"""Space → who is in it and its room, and who of them moderates; names with spaces between."""


def _seen(rooms: Mapping[str, Room], bot: str) -> dict[str, tuple[str, str]]:
    """The same of the homeserver, by the keys of all rooms."""
    found = {}
    for key, room in rooms.items():
        levels = room.levels.get("users", {})
        people = room.members() - {bot}
        found[key] = (_names(people), _names({mxid for mxid in people if levels.get(mxid) == 50}))
    return found


def _names(mxids: set[str]) -> str:
    return " ".join(sorted(mxid[1:].partition(":")[0] for mxid in mxids))


async def _follows(stage: Stage, wanted: Expected) -> None:
    """The homeserver is like that, every space with its room."""
    rooms = {key: people for space, people in wanted.items() for key in (space, f"{space}/general")}
    assert _seen(await stage.rooms(), stage.homeserver.bot) == rooms


async def _becomes(stage: Stage, daemon: Command, wanted: Expected) -> None:
    """After a change made just now the daemon makes it like that, and rests."""
    before = len(daemon.err)

    async def follows() -> bool:
        try:
            await _follows(stage, wanted)
        except (AssertionError, KeyError):
            return False
        return True

    try:
        await until(follows, "the homeserver follows the directory")
    except AssertionError:
        # Says what the difference is.
        await _follows(stage, wanted)
        raise
    await _rests(daemon)
    looks, cycle, _ = daemon.err[before:].partition("cycle done")
    assert cycle
    # One may have been under way, and one not yet read from the pipe.
    assert looks.count("unchanged") <= 2, "the next poll did not see it"


async def _rests(daemon: Command) -> None:
    """The daemon has looked once more and found nothing new: only a change makes it read again."""
    looks = daemon.err.count("unchanged")
    await until(lambda: daemon.err.count("unchanged") > looks, "it looks and finds nothing new")


@asynccontextmanager
async def _following(stage: Stage) -> AsyncIterator[Command]:
    """`aim run`, which looks every second, and reads only for a reason."""
    source = stage.config["source"] | {"check_interval_seconds": 1}
    stage.configure(source=source, logging={"level": "debug"})
    async with stage.daemon() as daemon:
        await _rests(daemon)
        yield daemon
        ended = await daemon.terminate()
    assert (ended.code, ended.out) == (0, "")


async def _outlives_an_outage(stage: Stage, daemon: Command, server: Slapd | Samba) -> None:
    """Says so, changes nothing, and goes on when the server is back."""
    stage.proxy.forget()
    server.stop()
    await daemon.says("the directory could not be read; the last good one stays in force")
    await until(lambda: daemon.err.count("could not be read") >= 2, "it looks again")
    assert f"{stage.config['source']['uri']}: no connection: Connection refused" in daemon.err
    server.start()
    await _rests(daemon)
    assert stage.proxy.writes == []


# -- OpenLDAP --------------------------------------------------------------------------------------------


def _source(slapd: Slapd, **options: object) -> dict[str, Any]:
    return {
        "type": "ldap",
        "uri": slapd.tls_uri,
        "ca_cert": str(slapd.ca),
        "base": SUFFIX,
        "bind_dn": READER,
        "bind_password": PASSWORD,
        **options,
    }


def _space(key: str, *groups: tuple[str, int]) -> dict[str, Any]:
    found = [{"externalId": external_id, "powerLevel": level} for external_id, level in groups]
    return {"id": key, "name": key.title(), "groups": found}


async def test_openldap_is_followed(stage: Stage, new_slapd: NewSlapd) -> None:
    slapd = new_slapd()
    company = _space("company", ("", 0), (f"cn=leads,ou=groups,{SUFFIX}", 50))
    units = [_space("engineering", (f"ou=engineering,{PEOPLE}", 0)), _space("sales", (SALES, 0))]
    stage.configure(source=_source(slapd), spaces=[company | {"subspaces": units}])
    everybody = "ada ben cleo dan eva finn greta hal kim max=20moreau"
    await stage.homeserver.register(*everybody.split())
    wanted = {
        "company": (everybody, "ben cleo dan"),
        "engineering": ("cleo dan eva finn", ""),
        "sales": ("greta hal kim max=20moreau", ""),
    }

    checked = await stage.aim("check")
    assert (checked.code, checked.err) == (0, "")
    for line in (
        f"login: logged in as {READER}",
        "changes: asked for every 60 s, by syncrepl",
        "source: 11 ",
    ):
        assert f"ok    {line}" in checked.out

    planned = await stage.plan()
    assert planned["source"] == {"type": "ldap", "users": 11, "groups": 14}
    await stage.apply()
    await _follows(stage, wanted)

    async with _following(stage) as daemon:
        slapd.rename(f"uid=eva,ou=backend,ou=engineering,{PEOPLE}", "uid=eva", SALES)
        wanted |= {"engineering": ("cleo dan finn", ""), "sales": ("eva greta hal kim max=20moreau", "")}
        await _becomes(stage, daemon, wanted)

        # "leads" nests "managers".
        finn = f"uid=Finn,ou=backend,ou=engineering,{PEOPLE}"
        slapd.add_values(f"cn=managers,ou=groups,{SUFFIX}", "member", finn)
        wanted["company"] = (everybody, "ben cleo dan finn")
        await _becomes(stage, daemon, wanted)

        slapd.set(f"uid=ada,{PEOPLE}", "pwdAccountLockedTime", "000001010000Z")
        wanted["company"] = (everybody.replace("ada ", ""), "ben cleo dan finn")
        await _becomes(stage, daemon, wanted)

        await _outlives_an_outage(stage, daemon, slapd)

        slapd.delete(f"uid=kim,{SALES}")
        wanted |= {
            "company": ("ben cleo dan eva finn greta hal max=20moreau", "ben cleo dan finn"),
            "sales": ("eva greta hal max=20moreau", ""),
        }
        await _becomes(stage, daemon, wanted)


async def test_units_of_the_tree_are_mirrored_as_spaces(stage: Stage, new_slapd: NewSlapd) -> None:
    slapd = new_slapd()
    # Without `spaces` there are those of the tree and no others.
    del stage.config["spaces"]
    stage.configure(source=_source(slapd, base=PEOPLE, mirror_tree=True))
    engineering = f"ou=engineering,{PEOPLE}"
    units = {
        "people": PEOPLE,
        "engineering": engineering,
        "backend": f"ou=backend,{engineering}",
        "sales": SALES,
        "empty": f"ou=empty,{PEOPLE}",
    }
    everybody = "ada ben cleo dan eva finn greta hal kim max=20moreau"
    await stage.homeserver.register(*everybody.split())
    people = {
        "people": everybody,
        "engineering": "cleo dan eva finn",
        "backend": "eva finn",
        "sales": "greta hal kim max=20moreau",
        "empty": "",
    }
    keys = {name: f"tree:{slapd.get(dn, 'entryUUID')['entryUUID'][0].decode()}" for name, dn in units.items()}

    await stage.apply()

    await _follows(stage, {keys[name]: (inside, "") for name, inside in people.items()})
    before = await stage.rooms()
    assert {name: before[key].name for name, key in keys.items()} == {name: name for name in units}
    inside = {"people": "engineering sales empty", "engineering": "backend"}
    for name, key in keys.items():
        children = {keys[child] for child in inside.get(name, "").split()} | {f"{key}/general"}
        assert before[key].related("m.space.child") == {before[child].room_id for child in children}, name
    assert (await stage.plan())["actions"] == []

    slapd.rename(engineering, "ou=development")
    await stage.apply()

    after = await stage.rooms()
    assert {key: room.room_id for key, room in after.items()} == {
        key: room.room_id for key, room in before.items()
    }
    renamed = {name: after[key].name for name, key in keys.items()}
    assert renamed == {name: name for name in units} | {"engineering": "development"}
    await _follows(stage, {keys[name]: (inside, "") for name, inside in people.items()})
    assert (await stage.plan())["actions"] == []


# -- Active Directory ------------------------------------------------------------------------------------

EXAMPLE: dict[str, Any] = {
    "type": "ldap",
    "check_interval_seconds": 60,
    "uri": "ldap://element.test",
    "base": "ou=employees,dc=element,dc=test",
    "filter": "(!(ou=Domain Controllers))",
    "bind_dn": r"ELEMENT\administrator",
    "bind_password": ADMIN_PASSWORD,
    "attributes": {"uid": "sAMAccountName", "name": "name"},
}
"""The source as the reference of the keys has it."""
MANAGERS = "cn=managers,ou=employees,dc=element,dc=test"


async def test_active_directory_is_followed(stage: Stage, new_samba: NewSamba) -> None:
    samba = new_samba()
    main = _space("main", ("", 0), (MANAGERS, 50))
    spaces = [main, _space("management", (MANAGERS, 0))]
    spaces += [_space(unit, (f"ou={unit},{EXAMPLE['base']}", 0)) for unit in ("engineering", "sales")]
    stage.configure(source=EXAMPLE | {"uri": samba.uri}, spaces=spaces)
    everybody = "ada ben cleo dan eva finn greta"
    await stage.homeserver.register(*everybody.split(), "ida")
    wanted = {
        "main": (everybody, "ben"),
        "management": ("ben", ""),
        "engineering": ("cleo dan eva finn", ""),
        "sales": ("greta", ""),
    }

    planned = await stage.aim("plan", "--json")
    assert planned.json["source"]["users"] == 8
    assert planned.err == (
        f"warning: source.bind_password goes to {samba.uri} unencrypted; use an ldaps:// uri, or set "
        "source.start_tls\n"
    )
    await stage.apply()
    await _follows(stage, wanted)

    async with _following(stage) as daemon:
        unit = f"OU=engineering,{EMPLOYEES}"
        samba.rename(f"CN=Dan Dietz,{unit}", "CN=Dan Dietz", f"OU=sales,{EMPLOYEES}")
        wanted |= {"engineering": ("cleo eva finn", ""), "sales": ("dan greta", "")}
        await _becomes(stage, daemon, wanted)

        # A group in the group, which lists one of its two members; for the other it is the primary group.
        samba.add_values(f"CN=managers,{EMPLOYEES}", "member", f"CN=engineering,{EMPLOYEES}")
        wanted |= {"main": (everybody, "ben eva finn"), "management": ("ben eva finn", "")}
        await _becomes(stage, daemon, wanted)

        ada = f"CN=Ada Abel,{EMPLOYEES}"
        samba.disable(ada)
        wanted["main"] = (everybody.replace("ada ", ""), "ben eva finn")
        await _becomes(stage, daemon, wanted)

        samba.delete(f"CN=Cleo Castro,{unit}")
        wanted |= {"main": ("ben dan eva finn greta", "ben eva finn"), "engineering": ("eva finn", "")}
        await _becomes(stage, daemon, wanted)

        await _outlives_an_outage(stage, daemon, samba)

        samba.disable(ada, disabled=False)
        wanted["main"] = ("ada ben dan eva finn greta", "ben eva finn")
        await _becomes(stage, daemon, wanted)
    assert daemon.err.count(f"source.bind_password goes to {samba.uri} unencrypted") == 1
    assert ADMIN_PASSWORD not in daemon.err
