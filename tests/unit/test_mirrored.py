"""`mirror_tree`: the units of the directory as nested spaces."""

from __future__ import annotations

import io

import pytest

from aim.bridges.ldif.parser import parse
from aim.config.root import Config
from aim.desired.desire import desire
from aim.desired.rooms import Desired
from aim.directory.entries import Rules
from aim.directory.flatten import flatten
from aim.directory.roster import NOBODY, Roster
from aim.world.recorded import Recorded
from aim.world.rooms import Observed

TREE = """\
dn: dc=x
objectClass: domain
entryUUID: 0

dn: ou=staff,dc=x
objectClass: organizationalUnit
entryUUID: 1

dn: ou=lab,cn=not read,ou=staff,dc=x
objectClass: organizationalUnit
entryUUID: 2

dn: cn=mods,ou=staff,dc=x
objectClass: groupOfNames
entryUUID: 3
member: uid=ann,dc=x

dn: uid=ann,dc=x
objectClass: person
entryUUID: a
uid: ann

dn: uid=bob,ou=lab,cn=not read,ou=staff,dc=x
objectClass: person
entryUUID: b
uid: bob

"""


def desired(ldif: str, spaces: list[dict[str, object]], *, mirror: bool = True) -> Desired:
    config = Config.model_validate(
        {
            "homeserver": {"url": "http://localhost:8008", "server_name": "example.com"},
            "appservice": {"as_token": "as", "hs_token": "hs"},
            "source": {"type": "ldif", "path": "x.ldif", "mirror_tree": mirror},
            **({"spaces": spaces} if spaces else {}),
        }
    )
    roster = Roster()
    directory = flatten(parse(io.BytesIO(ldif.encode()), "x.ldif"), Rules(), roster, source="ldif", name=None)
    observed = Observed(rooms={}, accounts=NOBODY, server_name="example.com", bot="@aim:example.com")
    return desire(config, directory, observed, Recorded())


def shown(found: Desired) -> dict[str, tuple[str | None, str, list[str]]]:
    roster = found.directory.roster
    return {
        key: (room.parent, room.name, roster.localparts(room.members)) for key, room in found.rooms.items()
    }


def test_units_and_domains_are_nested_as_in_the_tree_and_groups_are_no_spaces() -> None:
    assert shown(desired(TREE, [])) == {
        "tree:0": (None, "x", ["ann", "bob"]),
        "tree:1": ("tree:0", "staff", ["bob"]),
        # The entry between was not read: the nearest unit above counts.
        "tree:2": ("tree:1", "lab", ["bob"]),
    }


def test_a_unit_that_is_renamed_keeps_its_space() -> None:
    renamed = shown(desired(TREE.replace("ou=lab", "ou=laboratory"), []))
    assert renamed["tree:2"] == ("tree:1", "laboratory", ["bob"])


def test_units_that_share_an_id_are_known_by_their_dn() -> None:
    found = shown(desired(TREE.replace("entryUUID: 2", "entryUUID: 1"), []))
    assert {key: parent for key, (parent, _, _) in found.items()} == {
        "tree:0": None,
        "tree:ou=staff,dc=x": "tree:0",
        "tree:ou=lab,cn=not read,ou=staff,dc=x": "tree:ou=staff,dc=x",
    }


@pytest.mark.parametrize(("mirror", "extra"), [(True, {"tree:0", "tree:1", "tree:2"}), (False, set())])
def test_it_stands_beside_configured_spaces(mirror: bool, extra: set[str]) -> None:
    spaces: list[dict[str, object]] = [{"id": "all", "name": "All", "groups": [{"externalId": ""}]}]
    assert set(desired(TREE, spaces, mirror=mirror).rooms) == {"all", *extra}
