"""Rooms that people made, and spaces that are adopted: what becomes a desired room, and by whose consent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from aim.desired.adopting import wanted_rooms
from aim.desired.desire import desire
from aim.desired.rooms import Desired, DesiredRoom
from aim.directory.model import Directory, Severity
from aim.directory.roster import Roster
from aim.planner.actions import Kick, SetPowerLevel
from aim.world.recorded import Recorded, RecordedRoom
from aim.world.rooms import Marker, Room
from tests.unit.model import BOT, INSTANCE, mxid
from tests.unit.worlds import (
    Scene,
    a_config,
    a_directory,
    a_room,
    a_room_of_people,
    a_space,
    an_observed,
    cycle,
    provisioned,
    room_id_of,
    with_child,
)

PEOPLE = ["ann", "bob", "cid", "dan", "eve"]
GROUPS = {"all": PEOPLE, "mods": ["bob"], "admins": ["ann"], "lab": ["cid", "dan"], "leads": ["dan"]}
ROOM = "!people:example.com"
CONFIG = a_config(
    a_space("top", "all", ("mods", 50), ("admins", 100)),
    a_space("lab", "lab", ("leads", 50), ("mods", 20)),
)
RESTRICTED: dict[str, Any] = {"rule": "restricted", "allow": ["top"]}


class Org:
    """Two spaces, and what people put into them."""

    def __init__(self) -> None:
        self.directory: Directory = a_directory(PEOPLE, GROUPS, roster=Roster())
        self.roster = self.directory.roster
        self.spaces = {key: a_room(self.roster, key, PEOPLE) for key in ("top", "lab")}

    def room(self, *joined: str, **more: Any) -> Room:
        return a_room_of_people(self.roster, ROOM, joined or ("eve",), **more)

    def managed(self, *joined: str, **more: Any) -> Room:
        """A room that was taken over."""
        room = self.room(*joined, **{"bot": "join", **more})
        return replace(room, marker=Marker(1, INSTANCE, room.room_id, mxid("eve"), 100))

    def desired(
        self,
        room: Room,
        added: Mapping[str, str],
        config: Any = CONFIG,
        others: Iterable[Room] = (),
        recorded: Recorded | None = None,
    ) -> Desired:
        """`added`: space → MXID of who put the room there."""
        spaces = {**self.spaces}
        for space, sender in added.items():
            spaces[space] = with_child(spaces[space], room.room_id, sender)
        everything = [room, *others]
        managed = [one for one in everything if one.marker is not None and one.bot == "join"]
        unmanaged = [one for one in everything if one not in managed]
        observed = an_observed(self.roster, PEOPLE, *spaces.values(), *managed, unmanaged=unmanaged)
        return desire(config, self.directory, observed, recorded or Recorded())

    def taken(self, room: Room, added: Mapping[str, str], config: Any = CONFIG) -> DesiredRoom | None:
        return self.desired(room, added, config).rooms.get(room.key)

    def who(self, room: DesiredRoom) -> list[str]:
        return self.roster.localparts(room.members)

    def levels(self, room: DesiredRoom) -> dict[str, int]:
        return {
            self.roster.localpart(person): level for person, level in sorted(room.levels_by_person().items())
        }


# -- consent --------------------------------------------------------------------------------------


@pytest.mark.parametrize("adder", ["ann", "bob", "eve"])
@pytest.mark.parametrize("rule", ["restricted", "knock_restricted"])
def test_a_room_that_lets_the_space_in_consents_whoever_put_it_there(rule: str, adder: str) -> None:
    org = Org()
    found = org.taken(org.room(rule=rule, allow=["top"]), {"top": mxid(adder)})
    assert found is not None
    assert (found.key, found.space, found.parent, found.is_space) == (ROOM, "top", None, False)
    assert (found.takes_over, found.only_invites, found.is_of_people) == (ROOM, False, True)
    assert (org.who(found), org.levels(found)) == (PEOPLE, {"ann": 100, "bob": 50})
    # Its name and topic are its own.
    assert (found.state, found.enforced) == ({}, frozenset())


@pytest.mark.parametrize(
    ("room", "adder", "consents"),
    [
        ({}, "ann", True),
        ({}, "bob", False),
        ({}, "nobody", False),
        ({"parents": ["top"]}, "bob", True),
        ({"parents": ["lab"]}, "bob", False),
    ],
)
def test_a_public_room_consents_by_its_parent_or_by_who_has_level_100(
    *, room: dict[str, Any], adder: str, consents: bool
) -> None:
    org = Org()
    found = org.taken(org.room(**room), {"top": mxid(adder)})
    assert found is not None
    assert found.only_invites is not consents
    assert org.who(found) == PEOPLE
    assert bool(found.levels) is consents


def test_the_directory_says_who_has_level_100_not_the_moment() -> None:
    org = Org()
    org.spaces["top"] = a_room(org.roster, "top", PEOPLE, levels={"bob": 100})
    found = org.taken(org.room(), {"top": mxid("bob")})
    assert found is not None
    assert found.only_invites
    # Whom the directory does not rule, the room does.
    exempt = a_config(a_space("top", "all", ("mods", 50)), allowed_users=["@bob:.*"])
    found = org.taken(org.room(), {"top": mxid("bob")}, exempt)
    assert found is not None
    assert not found.only_invites


@pytest.mark.parametrize(("level", "consents"), [(100, True), (99, False)])
def test_somebody_of_another_server_counts_as_the_room_has_it(*, level: int, consents: bool) -> None:
    org = Org()
    zoe = "@zoe:example.org"
    org.spaces["top"] = a_room(org.roster, "top", PEOPLE, foreign_levels={zoe: level})
    found = org.taken(org.room(), {"top": zoe})
    assert found is not None
    assert found.only_invites is not consents


@pytest.mark.parametrize(
    "room",
    [
        {"rule": "invite"},
        {"rule": "knock"},
        {"rule": "private"},
        {"rule": None},
        {"rule": "restricted", "allow": ["lab"]},
        {"rule": "restricted"},
        {**RESTRICTED, "is_space": True},
        {"rule": "public", "is_space": True},
        {**RESTRICTED, "replacement": "!new:example.com"},
        {**RESTRICTED, "replacement": ""},
    ],
)
def test_private_rooms_spaces_and_replaced_rooms_are_not_touched(room: dict[str, Any]) -> None:
    org = Org()
    assert org.taken(org.room(**room), {"top": mxid("ann")}) is None


def test_a_rule_that_is_no_membership_allows_nobody() -> None:
    org = Org()
    room = org.room(**RESTRICTED)
    odd_rules: tuple[object, ...] = ([{"type": "org.example", "room_id": room_id_of("top")}], {}, ["x"], None)
    for allow in odd_rules:
        odd = replace(room, state={"m.room.join_rules": {"join_rule": "restricted", "allow": allow}})
        assert org.taken(odd, {"top": mxid("ann")}) is None


def test_a_room_in_no_space_of_ours_is_not_touched() -> None:
    org = Org()
    assert org.taken(org.room(**RESTRICTED), {}) is None


def test_without_invites_to_rooms_an_unwilling_room_is_nothing_to_us() -> None:
    org = Org()
    config = a_config(a_space("top", "all"), invite_to_public_rooms=False)
    assert org.taken(org.room(), {"top": mxid("bob")}, config) is None
    willing = org.taken(org.room(**RESTRICTED), {"top": mxid("bob")}, config)
    assert willing is not None
    assert not willing.invites


# -- in two spaces --------------------------------------------------------------------------------


def test_a_room_in_two_spaces_has_the_people_of_both_with_the_highest_of_their_levels() -> None:
    org = Org()
    room = org.room(rule="restricted", allow=["top", "lab"])
    found = org.taken(room, {"lab": mxid("dan"), "top": mxid("bob")})
    assert found is not None
    assert found.space == "top"
    assert org.who(found) == PEOPLE
    assert org.levels(found) == {"ann": 100, "bob": 50, "dan": 50}
    assert [grant.group for grant in found.grants] == ["all", "mods", "admins", "lab", "leads", "mods"]


def test_it_counts_only_where_it_consents() -> None:
    org = Org()
    room = org.room(rule="restricted", allow=["lab"])
    found = org.taken(room, {"lab": mxid("dan"), "top": mxid("ann")})
    assert found is not None
    assert (found.space, org.who(found)) == ("lab", ["bob", "cid", "dan"])
    assert org.levels(found) == {"bob": 20, "dan": 50}


def test_a_default_level_in_one_space_outdoes_a_negative_one_in_another() -> None:
    org = Org()
    config = a_config(a_space("top", ("all", -5)), a_space("lab", "lab"))
    room = org.room(rule="restricted", allow=["top", "lab"])
    found = org.taken(room, dict.fromkeys(("top", "lab"), mxid("bob")), config)
    assert found is not None
    assert org.levels(found) == {"ann": -5, "bob": -5, "eve": -5}


# -- a space that can't be seen --------------------------------------------------------------------


def in_two_spaces() -> Scene:
    """A managed room in two spaces, with three people of each, of whom `ann` and `xan` have 50; and `eve`."""
    groups = {"g1": ["ann", "bob", "cid"], "g2": ["xan", "yan", "zoe"], "ann": ["ann"], "xan": ["xan"]}
    people = [*groups["g1"], *groups["g2"], "eve"]
    config = a_config(a_space("one", "g1", ("ann", 50)), a_space("two", "g2", ("xan", 50)))
    scene = provisioned(config, a_directory(people, groups))
    spaces = {key: with_child(space, ROOM, mxid("ann")) for key, space in scene.observed.rooms.items()}
    allow = [{"type": "m.room_membership", "room_id": space.room_id} for space in spaces.values()]
    room = replace(
        a_room_of_people(scene.roster, ROOM, people, levels={"ann": 50, "xan": 50, "eve": 50}, bot="join"),
        marker=Marker(1, INSTANCE, ROOM, mxid("eve"), 100),
        state={"m.room.join_rules": {"join_rule": "restricted", "allow": allow}},
    )
    recorded = replace(scene.recorded, rooms={**scene.recorded.rooms, ROOM: RecordedRoom(ROOM, ROOM, None)})
    return replace(scene, observed=replace(scene.observed, rooms={**spaces, ROOM: room}), recorded=recorded)


def done_in_the_room(scene: Scene) -> list[str]:
    """What happens to people there."""
    kinds = (Kick, SetPowerLevel)
    actions = scene.plan().actions
    return sorted(action.identity for action in actions if isinstance(action, kinds) and action.room == ROOM)


def forgotten(scene: Scene) -> Scene:
    """Nothing is recorded of the space `one`."""
    rooms = {key: room for key, room in scene.recorded.rooms.items() if key != "one"}
    return replace(scene, recorded=replace(scene.recorded, rooms=rooms))


@pytest.mark.parametrize("known_by", ["record", "adoption", "newer marker"])
def test_whose_space_cannot_be_seen_keeps_place_and_level_in_a_room_of_another_space(known_by: str) -> None:
    scene = in_two_spaces()
    space_id = scene.observed.rooms["one"].room_id
    unseen = scene.without_room("one")
    if known_by != "record":
        unseen = forgotten(unseen)
    if known_by == "newer marker":
        unseen = replace(unseen, observed=replace(unseen.observed, newer={"one": space_id}))
    elif known_by == "adoption":
        first = a_space("one", "g1", ("ann", 50), room=space_id)
        config = a_config(first, a_space("two", "g2", ("xan", 50)))
        unseen = replace(unseen, config=config)
    # Only she is of neither space: she goes in both cases.
    gone = [f"kick {ROOM} {mxid('eve')}", f"set_power_level {ROOM} {mxid('eve')} 0"]
    assert done_in_the_room(scene) == gone
    assert done_in_the_room(unseen) == gone


def told_as_it_was(scene: Scene, key: str) -> Scene:
    """That space can't be read: what is told of it is older than the room of people in it."""
    space = scene.observed.rooms[key]
    earlier = scene.with_room(key, children={})
    return replace(earlier, observed=replace(earlier.observed, unseen={space.room_id: "502"}))


@pytest.mark.parametrize("known_by", ["record", "marker"])
def test_whose_space_is_told_as_it_was_keeps_place_and_level_too(known_by: str) -> None:
    scene = in_two_spaces()
    stale = told_as_it_was(scene, "one")
    gone = [f"kick {ROOM} {mxid('eve')}", f"set_power_level {ROOM} {mxid('eve')} 0"]
    assert done_in_the_room(stale if known_by == "record" else forgotten(stale)) == gone
    current = replace(stale, observed=replace(stale.observed, unseen={}))
    assert f"kick {ROOM} {mxid('ann')}" in done_in_the_room(current), "read, and not in it any more"


def test_in_a_room_that_an_old_copy_of_a_space_has_nobody_is_touched() -> None:
    """By the old copy it is in `one` alone; by now it may be somewhere else, or nobody's but its people's."""
    scene = in_two_spaces().with_room("two", children={})
    space_id = scene.observed.rooms["one"].room_id
    stale = replace(scene, observed=replace(scene.observed, unseen={space_id: "502"}))
    assert f"kick {ROOM} {mxid('xan')}" in done_in_the_room(scene)
    assert done_in_the_room(stale) == []
    assert ROOM in stale.desired.rooms


def test_in_a_deconfigured_room_of_a_space_that_is_told_as_it_was_nobody_is_touched() -> None:
    rooms = {"default_rooms": [{"id": "talk"}]}
    before = provisioned(a_config(a_space("one", ""), **rooms), a_directory(["ann"]))
    before = before.with_room("one/talk", joined=["ann", "eve"], levels={"eve": 50})
    scene = replace(before, config=a_config(a_space("one", "")))

    def done(scene: Scene) -> list[str]:
        actions = scene.plan().actions
        return [action.identity for action in actions if isinstance(action, (Kick, SetPowerLevel))]

    gone = [f"set_power_level one/talk {mxid('eve')} 0", f"kick one/talk {mxid('eve')}"]
    assert sorted(done(scene)) == sorted(gone)
    unseen = {scene.observed.rooms["one"].room_id: "502"}
    assert done(replace(scene, observed=replace(scene.observed, unseen=unseen))) == []
    # The configuration has it there, wherever people may have put it.
    assert sorted(done(replace(before, observed=replace(before.observed, unseen=unseen)))) == sorted(gone)


def test_once_the_space_is_seen_again_who_lost_it_goes_and_is_demoted() -> None:
    scene = in_two_spaces()
    unseen = cycle(scene.without_room("one"))
    rooms = {**unseen.observed.rooms, "one": scene.observed.rooms["one"]}
    seen = replace(unseen, observed=replace(unseen.observed, rooms=rooms))
    assert done_in_the_room(seen) == []
    groups = {"g1": ["bob"], "g2": ["xan", "yan", "zoe"], "xan": ["xan"], "ann": []}
    users = ["ann", "bob", "cid", "xan", "yan", "zoe", "eve"]
    fewer = replace(seen, directory=a_directory(users, groups, roster=seen.roster))
    assert done_in_the_room(fewer) == [
        f"kick {ROOM} {mxid('ann')}",
        f"kick {ROOM} {mxid('cid')}",
        f"set_power_level {ROOM} {mxid('ann')} 0",
    ]


def test_a_space_that_is_yet_to_be_made_spares_nobody() -> None:
    scene = forgotten(in_two_spaces()).without_room("one")
    kicks = {f"kick {ROOM} {mxid(name)}" for name in ("ann", "bob", "cid")}
    assert kicks <= set(done_in_the_room(scene))


# -- rooms that are ours already -------------------------------------------------------------------


def test_a_room_taken_over_stays_managed_while_it_consents() -> None:
    org = Org()
    assert org.taken(org.managed(**RESTRICTED), {"top": mxid("bob")}) is not None
    assert org.taken(org.managed(rule="invite"), {"top": mxid("bob")}) is None
    assert org.taken(org.managed(**RESTRICTED), {}) is None
    assert org.taken(org.managed(**RESTRICTED, replacement="!new:example.com"), {"top": mxid("bob")}) is None


def test_what_somebody_put_there_who_left_stays_as_long_as_it_is_ours() -> None:
    org = Org()
    org.spaces["top"] = a_room(org.roster, "top", ["bob", "eve"])
    assert org.taken(org.managed(), {"top": mxid("gone")}) is not None
    assert org.taken(org.managed(), {"top": mxid("cid")}) is not None
    assert org.taken(org.managed(), {"top": mxid("bob")}) is None
    found = org.taken(org.room(), {"top": mxid("gone")})
    assert found is not None
    assert found.only_invites


def test_an_upgrade_by_people_is_followed_if_it_points_back() -> None:
    org = Org()
    old = org.managed(**RESTRICTED, replacement="!new:example.com")
    new = a_room_of_people(org.roster, "!new:example.com", ["eve"], **RESTRICTED, predecessor=ROOM)
    added = {"top": mxid("bob")}
    assert set(org.desired(old, added, others=[new]).rooms) == {"top", "lab", "!new:example.com"}
    other = replace(new, predecessor="!else:example.com")
    assert set(org.desired(old, added, others=[other]).rooms) == {"top", "lab"}
    assert set(org.desired(old, added).rooms) == {"top", "lab"}


def test_a_room_that_we_made_is_never_handed_over_by_an_upgrade() -> None:
    org = Org()
    ours = replace(a_room(org.roster, "gone/talk"), replacement="!new:example.com")
    new = a_room_of_people(
        org.roster,
        "!new:example.com",
        ["eve"],
        **RESTRICTED,
        predecessor=ours.room_id,
    )
    assert set(org.desired(ours, {"top": mxid("bob")}, others=[new]).rooms) == {"top", "lab"}


def test_rooms_that_replace_each_other_end() -> None:
    org = Org()
    one = org.managed(**RESTRICTED, replacement="!two:example.com", predecessor="!two:example.com")
    two = replace(one, room_id="!two:example.com", replacement=ROOM, predecessor=ROOM, marker=None, bot=None)
    assert set(org.desired(one, {"top": mxid("bob")}, others=[two]).rooms) == {"top", "lab"}


def test_a_room_of_ours_in_another_space_needs_no_consent_but_open_doors() -> None:
    org = Org()
    for rule, managed in (("public", True), ("restricted", True), ("invite", False)):
        room = a_room(org.roster, "gone/talk", state={"m.room.join_rules": {"join_rule": rule}})
        found = org.taken(room, {"top": mxid("bob")})
        assert (found is not None) is managed
        if found is not None:
            assert (found.key, found.space, found.takes_over) == ("gone/talk", "top", room.room_id)


def test_a_marker_of_a_newer_version_or_of_a_room_that_has_its_place_means_hands_off() -> None:
    org = Org()
    left = replace(a_room(org.roster, "gone/talk"), bot="leave")
    assert org.taken(left, {"top": mxid("bob")}) is not None
    newer = replace(left, marker=Marker(2, INSTANCE, "gone/talk"))
    assert org.taken(newer, {"top": mxid("bob")}) is None
    second = replace(left, room_id="!second:example.com")
    found = org.desired(second, {"top": mxid("bob")}, others=[a_room(org.roster, "gone/talk")])
    assert "gone/talk" not in found.rooms


# -- default rooms that people close and open -------------------------------------------------------

TALK = a_config(a_space("top", "all"), default_rooms=[{"id": "talk"}], gc={"enabled": True})
RULES = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "space": "top"}]}


def talk(org: Org, rule: str, applied: Mapping[str, object] | None, config: Any = TALK) -> DesiredRoom | None:
    """The default room with that join rule, `applied` being the rules that we gave it last."""
    room = a_room(org.roster, "top/talk", state={"m.room.join_rules": {"join_rule": rule}})
    properties = None if applied is None else {"m.room.join_rules": applied}
    recorded = Recorded(rooms={"top/talk": RecordedRoom("top/talk", room.room_id, properties)})
    return org.desired(room, {"top": BOT}, config, recorded=recorded).rooms.get("top/talk")


@pytest.mark.parametrize(
    ("rule", "applied", "managed"),
    [
        ("restricted", RULES, True),
        ("public", RULES, True),
        ("invite", RULES, False),
        ("knock", RULES, False),
        # The configuration changed, and the room does not follow yet.
        ("invite", {"join_rule": "invite"}, True),
        # Nothing is known, as after the loss of the database.
        ("invite", None, True),
    ],
)
def test_a_default_room_that_people_made_private_is_let_go_of(
    *, rule: str, applied: Mapping[str, object] | None, managed: bool
) -> None:
    assert (talk(Org(), rule, applied) is not None) is managed
    # Also once it is no longer configured: what it was given last is still known.
    assert (
        talk(Org(), rule, applied, a_config(a_space("top", "all"), gc={"enabled": True})) is not None
    ) is (managed)


def test_without_clean_up_it_stays_as_it_is() -> None:
    assert talk(Org(), "invite", RULES, a_config(a_space("top", "all"), default_rooms=[{"id": "talk"}]))


def test_a_default_room_that_is_private_by_configuration_stays() -> None:
    properties = {"join_rule": "invite"}
    config = a_config(
        a_space("top", "all"), default_rooms=[{"id": "talk", "properties": properties}], gc={"enabled": True}
    )
    assert talk(Org(), "invite", {"join_rule": "invite"}, config) is not None


@pytest.mark.parametrize(("rule", "again"), [("restricted", True), ("invite", False)])
def test_a_default_room_that_we_left_is_ours_again_when_it_is_open(*, rule: str, again: bool) -> None:
    org = Org()
    state = {"m.room.join_rules": {"join_rule": rule}}
    room = replace(a_room(org.roster, "top/talk", ["eve"], state=state), bot="leave")
    found = org.desired(room, {"top": mxid("bob")}, TALK).rooms["top/talk"]
    assert found.takes_over == (room.room_id if again else None)
    assert (found.parent, found.is_of_people) == ("top", False)


def test_a_deconfigured_default_room_that_left_its_space_is_not_managed() -> None:
    org = Org()
    config = a_config(a_space("top", "all"))
    room = a_room(org.roster, "top/talk")
    assert "top/talk" not in org.desired(room, {}, config).rooms
    assert "top/talk" in org.desired(room, {"top": BOT}, config).rooms
    observed = an_observed(
        org.roster, PEOPLE, org.spaces["top"], room, unseen={org.spaces["top"].room_id: "502"}
    )
    assert "top/talk" in desire(config, org.directory, observed, Recorded()).rooms, "may be in it again"


# -- adopting ---------------------------------------------------------------------------------------

ALIAS, SPACE = "#old:example.com", "!old:example.com"


def adopting(*names: str, **observed: Any) -> Desired:
    spaces = [a_space(f"s{number}", "all", room=name) for number, name in enumerate(names)]
    directory = a_directory(PEOPLE, GROUPS, roster=Roster())
    rooms = [make(directory.roster) for make in observed.pop("rooms", ())]
    unmanaged = [make(directory.roster) for make in observed.pop("unmanaged", ())]
    seen = an_observed(directory.roster, PEOPLE, *rooms, unmanaged=unmanaged, **observed)
    return desire(a_config(*spaces), directory, seen, Recorded())


def old_space(roster: Roster, **changes: Any) -> Room:
    room = a_room_of_people(roster, SPACE, ["eve"], rule="invite")
    return replace(room, **{"is_space": True, **changes})


@pytest.mark.parametrize("name", [ALIAS, SPACE])
def test_an_existing_space_is_taken_over_by_alias_or_id(name: str) -> None:
    found = adopting(name, unmanaged=[old_space], aliases={ALIAS: SPACE})
    assert (found.rooms["s0"].takes_over, found.rooms["s0"].is_of_people) == (SPACE, False)
    assert found.rooms["s0"].enforced == {"m.room.name"}
    assert found.problems == ()


@pytest.mark.parametrize(
    ("name", "observed", "text"),
    [
        (ALIAS, {}, "is not found: the homeserver knows no such alias"),
        (ALIAS, {"unseen": {ALIAS: "the homeserver is asleep"}}, "is not found: the homeserver is asleep"),
        (SPACE, {}, "can't be looked into: nobody of ours is in it"),
        (SPACE, {"unseen": {SPACE: "dark"}}, "can't be looked into: dark"),
        (SPACE, {"unmanaged": [lambda roster: old_space(roster, is_space=False)]}, "is a room, not a space"),
        (
            SPACE,
            {"unmanaged": [lambda roster: old_space(roster, replacement="!new")]},
            "was replaced by !new: name the new one",
        ),
        (
            SPACE,
            {"rooms": [lambda roster: a_room(roster, "else", room_id=SPACE)]},
            "is managed as else already",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_an_error_and_nothing_is_made_instead(
    name: str, observed: dict[str, Any], text: str
) -> None:
    found = adopting(name, **observed)
    assert found.rooms["s0"].takes_over == ""
    [problem] = found.problems
    assert (problem.severity, problem.subject) == (Severity.ERROR, "s0")
    assert problem.message == f"`room: {name}` {text}; no other one is made"


def test_one_space_is_taken_over_once() -> None:
    found = adopting(ALIAS, SPACE, unmanaged=[old_space], aliases={ALIAS: SPACE})
    assert [found.rooms[key].takes_over for key in ("s0", "s1")] == [SPACE, ""]
    [problem] = found.problems
    assert (problem.subject, problem.severity) == ("s1", Severity.ERROR)
    assert "is taken over as s0 already" in problem.message


def test_once_it_is_ours_the_alias_may_go_and_another_name_has_no_effect() -> None:
    def ours(roster: Roster) -> Room:
        return a_room(roster, "s0", ["eve"], creator=mxid("eve"), taken_over=True, room_id=SPACE)

    assert adopting(ALIAS, rooms=[ours]).problems == ()
    assert adopting(SPACE, rooms=[ours]).problems == ()
    found = adopting("!other:example.com", rooms=[ours])
    assert found.rooms["s0"].takes_over == SPACE
    [problem] = found.problems
    assert problem.severity is Severity.WARNING
    assert "`room: !other:example.com` has no effect" in problem.message


def test_whoever_is_to_have_the_highest_level_is_asked_first() -> None:
    below = a_space("s1", "leads", room=SPACE)
    config = a_config(a_space("s0", "", ("mods", 50), ("admins", 100), room=ALIAS, subspaces=[below]))
    directory = a_directory(PEOPLE, GROUPS)
    assert wanted_rooms(config, directory) == {ALIAS: ("ann", "bob", "cid", "dan", "eve"), SPACE: ("dan",)}
    crowd = a_directory([f"u{number}" for number in range(50)], {})
    assert len(wanted_rooms(config, crowd)[ALIAS]) == 20
    assert wanted_rooms(a_config(a_space("s", "")), crowd) == {}
