"""`aim explain`: in or not, which level, by what right, since when, what happened, what stands against it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aim.errors import AimError
from aim.planner.actions import ActionType
from aim.planner.against import Against
from aim.planner.explain import MOST, Explanation, Question, explain, scope_of
from aim.planner.explained import to_json, to_lines
from aim.planner.standing import Standing, Through
from aim.world.audit import Audit, Entitlement, Happened
from tests.unit.model import BOT, SERVER
from tests.unit.worlds import (
    NO_LIMITS,
    NOW,
    Scene,
    a_config,
    a_directory,
    a_queued,
    a_room_of_people,
    a_scene,
    a_space,
    a_user,
    cycle,
    provisioned,
    with_child,
)

STRANGER = "@zoe:elsewhere.example"
MS = 1000
HOUR_AGO = int((NOW - timedelta(hours=1)).timestamp()) * MS


def yard(accounts: str = "ann bob cid", **provisioner: object) -> Scene:
    """The space `all` of everybody; in it `lab`, where leads have level 50; in that `shed`."""
    shed = a_space("shed", "shedders")
    lab = a_space("lab", ("leads", 50), "labbers", subspaces=[shed])
    config = a_config(
        a_space("all", "", subspaces=[lab]),
        default_rooms=[{"id": "general", "properties": {"name": "General"}}],
        **{"guards": NO_LIMITS, **provisioner},
    )
    groups = {"leads": ["ann"], "labbers": ["ann", "bob"], "shedders": ["dan"]}
    return provisioned(config, a_directory(["ann", "bob", "cid", "dan"], groups), accounts.split())


def ask(
    scene: Scene,
    person: str | None = None,
    room: str | None = None,
    audit: Audit | None = None,
    *,
    everybody: bool = False,
) -> Explanation:
    world, plan = scene.world, scene.plan()
    scope = scope_of(world, plan, Question(person, room, everybody))
    return explain(world, plan, scope, audit or Audit())


def one(scene: Scene, person: str, room: str, audit: Audit | None = None) -> Standing:
    """The one standing of an answer; it can be told as text and as JSON."""
    found = ask(scene, person, room, audit)
    (standing,) = found.standings
    assert to_lines(found)[0].startswith(standing.person)
    assert json.loads(json.dumps(to_json(found)))["standings"][0]["room"] == room
    return standing


def against(standing: Standing) -> list[str]:
    return [obstacle.kind for obstacle in standing.against]


# -- one person in one room ------------------------------------------------------------------------------


def test_who_is_in_by_a_group_that_gives_a_level() -> None:
    happened = Happened("invite", "done", "member of leads", "", NOW, 7, "sha256:1")
    audit = Audit({("lab", "ann"): Entitlement(NOW)}, {("lab", f"@ann:{SERVER}"): happened})

    found = ask(yard(), "@ann:example.com", "lab", audit)

    assert to_lines(found) == [
        "@ann:example.com is in Lab (lab), level 50",
        "  because   member of leads",
        "  level     member of leads, which gives level 50",
        "  through   leads of space lab, level 50",
        "  through   labbers of space lab",
        "  since     2030-01-01T12:00Z",
        "  last      invite done at 2030-01-01T12:00Z (member of leads)",
        "  next      nothing",
    ]


def test_who_is_in_by_a_subspace() -> None:
    standing = one(yard("ann bob cid dan"), "dan", "lab")

    assert (standing.state, standing.entitled, standing.level, standing.wanted_level) == ("in", True, 0, 0)
    assert standing.reason == "in its subspace shed: member of shedders"
    assert standing.through == (Through("shed", "shedders", 0),)


@pytest.mark.parametrize(
    ("known", "member", "since"),
    [
        (Entitlement(NOW), True, NOW),
        (Entitlement(NOW, None, NOW + timedelta(days=1)), True, NOW + timedelta(days=1)),
        (Entitlement(NOW, NOW + timedelta(days=1)), True, None),
        (Entitlement(NOW, NOW + timedelta(days=1)), False, NOW + timedelta(days=1)),
        (Entitlement(NOW), False, None),
        (None, True, None),
    ],
)
def test_since_when(known: Entitlement | None, member: bool, since: object) -> None:
    name = "bob" if member else "cid"
    audit = Audit({("lab", name): known}) if known else Audit()
    assert one(yard(), name, "lab", audit).since == since


def test_who_is_in_without_a_right_is_removed_next() -> None:
    scene = yard().with_room("lab", joined=["ann", "bob", "cid"])

    standing = one(scene, "cid", "lab")

    assert (standing.state, standing.entitled) == ("in without a right", False)
    assert standing.reason == "not in leads or labbers"
    assert [action.type for action in standing.next] == [ActionType.KICK]


def test_a_level_that_differs_is_told_with_the_one_that_should_be() -> None:
    scene = yard().with_room("lab", levels={"ann": 50, "bob": 50})

    found = ask(scene, "bob", "lab")

    assert to_lines(found)[0] == "@bob:example.com is in Lab (lab), level 50, should be 0"
    assert "  next      set_power_level 50 → 0: no group of theirs gives more than level 0 here" in to_lines(
        found
    )


@pytest.mark.parametrize(
    ("name", "state"), [("invited", "invited"), ("knocking", "knocking"), ("banned", "banned")]
)
def test_other_memberships(name: str, state: str) -> None:
    scene = yard().with_room("lab", joined=["ann"], **{name: ["bob"]})
    assert one(scene, "bob", "lab").state == state


# -- what stands against it ------------------------------------------------------------------------------


def test_who_left_a_space_is_asked_again_a_day_later() -> None:
    standing = one(yard().with_room("lab", joined=["ann"], left={"bob": HOUR_AGO}), "bob", "lab")

    assert (standing.state, against(standing)) == ("left", [Against.LEFT])
    assert standing.left_at == NOW - timedelta(hours=1)
    assert standing.against[0].until == NOW + timedelta(hours=23)
    assert not standing.next


def test_who_left_a_space_long_ago_is_asked_again_now() -> None:
    days = 25 * 3600 * MS
    standing = one(yard().with_room("lab", joined=["ann"], left={"bob": HOUR_AGO - days}), "bob", "lab")

    assert against(standing) == []
    assert [action.type for action in standing.next] == [ActionType.INVITE]


def test_who_left_a_room_is_not_asked_again() -> None:
    scene = yard().with_room("lab/general", joined=["ann"], left={"bob": HOUR_AGO})

    standing = one(scene, "bob", "lab/general")

    assert against(standing) == [Against.LEFT]
    assert standing.against[0].until is None
    assert "until their entitlement changes" in standing.against[0].text


def test_an_account_that_is_gone_has_not_left_by_its_own_wish() -> None:
    standing = one(yard("ann cid").with_room("lab", joined=["ann"], left={"bob": HOUR_AGO}), "bob", "lab")

    assert against(standing) == [Against.PENDING]
    assert "the account is gone" in standing.against[0].text


def test_who_is_banned_stays_banned() -> None:
    standing = one(yard().with_room("lab", joined=["ann"], banned=["bob"]), "bob", "lab")
    assert (against(standing), standing.next) == ([Against.BANNED], ())


def test_who_has_no_account_is_pending_in_rooms_and_in_those_to_come() -> None:
    assert against(one(yard(), "dan", "shed")) == [Against.PENDING]
    scene = yard()
    assert against(one(a_scene(scene.config, scene.directory, ["ann"]), "dan", "shed")) == [Against.PENDING]


def test_who_matches_allowed_users_is_left_alone() -> None:
    scene = yard(allowed_users=["@cid:.*"]).with_room("lab", joined=["ann", "bob", "cid"])

    standing = one(scene, "cid", "lab")

    assert (against(standing), standing.next) == ([Against.ALLOWED_USERS], ())
    assert "'@cid:.*'" in standing.against[0].text


def test_what_a_guard_holds_is_told_with_the_limit() -> None:
    tight = {"kicks": {"per_space": {"at_least": 0, "percent": 0}, "organisation": {"at_least": 100}}}
    scene = yard(guards=tight)
    scene = replace(
        scene,
        directory=a_directory(
            ["ann", "bob", "cid", "dan"],
            {"leads": ["ann"], "labbers": ["ann"], "shedders": []},
            roster=scene.roster,
        ),
    )

    standing = one(scene, "bob", "lab")

    assert against(standing) == [Against.HELD]
    assert "kicks in space lab" in standing.against[0].text
    assert [(action.type, action.held) for action in standing.next] == [(ActionType.KICK, True)]


def test_hands_off_is_told_with_the_problem_that_says_why() -> None:
    scene = yard()
    users = [a_user("bob", "another-id"), *map(a_user, ("ann", "cid", "dan"))]
    scene = replace(scene, directory=a_directory(users, {"leads": [], "labbers": []}, roster=scene.roster))

    standing = one(scene, "bob", "lab")

    assert Against.HANDS_OFF in against(standing)
    assert "aim rebind id-bob another-id" in standing.against[0].text
    assert not standing.next


def test_a_contested_name_is_hands_off_too() -> None:
    scene = yard()
    directory = a_directory(["ann", "cid", "dan"], {}, roster=scene.roster, contested=["bob"])
    assert Against.HANDS_OFF in against(one(replace(scene, directory=directory), "bob", "lab"))


def test_a_group_that_is_not_found_spares_people() -> None:
    scene = yard()
    directory = a_directory(
        ["ann", "bob", "cid", "dan"], {"leads": ["ann"], "shedders": ["dan"]}, roster=scene.roster
    )
    standing = one(replace(scene, directory=directory), "bob", "lab")
    assert (against(standing), standing.next) == ([Against.SPARED], ())


def test_who_made_a_room_of_version_12_is_out_of_reach() -> None:
    scene = yard()
    made = a_room_of_people(
        scene.roster, "!own", ["bob", "ann"], allow=["lab"], rule="restricted", version="12", bot="join"
    )
    # A member of the homeserver's makes `lab` their own room's space; ids are those of the simulator.
    lab = scene.observed.rooms["lab"]
    allow = {
        "m.room.join_rules": {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": lab.room_id}],
        }
    }
    made = replace(made, state=allow)
    rooms = {**scene.observed.rooms, "lab": with_child(lab, "!own", f"@bob:{SERVER}")}
    scene = replace(scene, observed=replace(scene.observed, rooms=rooms, unmanaged={"!own": made}))

    standing = one(scene, "bob", "!own")

    assert (standing.above_all, standing.level, standing.entitled) == (True, None, True)
    assert Against.OUT_OF_REACH in against(standing)
    assert standing.through == (Through("lab", "labbers", 0),)


def test_the_bot_and_people_of_other_servers_are_never_touched() -> None:
    scene = yard().with_room("lab", foreign=frozenset({STRANGER}))

    bot, stranger = one(scene, BOT, "lab"), one(scene, STRANGER, "lab")

    assert (bot.above_all, bot.entitled, against(bot)) == (True, None, [Against.BOT])
    assert (stranger.state, stranger.entitled, against(stranger)) == ("in", None, [Against.FOREIGN])
    assert [standing.room for standing in ask(scene, STRANGER).standings] == ["lab"]
    assert ask(scene, BOT).standings == ()


# -- one person, one room --------------------------------------------------------------------------------


def test_a_person_is_told_of_wherever_something_is_theirs() -> None:
    scene = yard().with_room("lab", joined=["ann", "bob", "cid"]).with_room("shed", levels={"cid": 50})

    found = ask(scene, "cid")

    assert [(standing.room, standing.state) for standing in found.standings] == [
        ("all", "in"),
        ("all/general", "in"),
        ("lab", "in without a right"),
        ("shed", "out"),
    ]
    lines = to_lines(found)
    sums_up = "is in 2 of 2 spaces and rooms of theirs, and in 1 space or room without a right to be"
    assert lines[0] == f"@cid:example.com {sums_up}"
    assert "  user      id-cid, active in the directory" in lines
    assert "  seen      id-cid, since 2030-01-01T12:00Z" in lines
    assert "  group     everyone" in lines
    assert lines[-1].startswith("shed         out                 level 50, should be 0  not in shedders")


def test_who_left_the_directory_is_known_still() -> None:
    scene = yard()
    gone = replace(
        scene, directory=a_directory(["ann", "cid", "dan"], {"leads": ["ann"]}, roster=scene.roster)
    )
    gone = cycle(gone)

    found = ask(gone.later(hours=1), "bob")

    lines = to_lines(found)
    assert lines[0] == "@bob:example.com has no right to be in any space or room"
    assert "  user      none in the directory" in lines
    assert "  seen      id-bob, since 2030-01-01T12:00Z, gone since 2030-01-01T12:00Z" in lines


def test_a_room_is_told_of_with_those_about_whom_something_differs() -> None:
    scene = yard().with_room("lab", joined=["ann", "cid"], left={"bob": HOUR_AGO})

    found = ask(scene, room="lab")

    assert [standing.person for standing in found.standings] == [
        f"@{name}:{SERVER}" for name in ("bob", "cid", "dan")
    ]
    assert found.room is not None
    assert (found.room.entitled, found.room.joined, found.room.missing, found.room.surplus) == (3, 2, 2, 1)
    assert found.room.status == "managed"
    everybody = ask(scene, room="lab", everybody=True)
    assert [standing.person for standing in everybody.standings] == [
        f"@{name}:{SERVER}" for name in ("ann", "bob", "cid", "dan")
    ]


def test_a_room_without_differences_names_nobody() -> None:
    assert ask(yard("ann bob cid dan"), room="lab").standings == ()


def test_many_people_are_counted_and_not_listed() -> None:
    names = [f"user{number:03}" for number in range(MOST + 7)]
    scene = a_scene(a_config(a_space("all", "")), a_directory(names))

    few, all_ = ask(scene, room="all"), ask(scene, room="all", everybody=True)

    assert (len(few.standings), few.left_out) == (MOST, 7)
    assert "and 7 more: add --all" in to_lines(few)
    assert (len(all_.standings), all_.left_out) == (MOST + 7, 0)


def test_what_the_next_cycle_does_to_a_room_that_is_not_made_yet() -> None:
    scene = yard()
    found = ask(a_scene(scene.config, scene.directory), room="lab")

    assert found.room is not None
    assert found.room.status == "not made yet"
    assert found.room.next[0].type is ActionType.CREATE_SPACE
    assert not found.is_recorded
    assert to_lines(found)[-1].startswith("nothing is recorded yet")


def test_a_room_that_left_the_configuration_says_so() -> None:
    scene = yard()
    found = ask(replace(scene, config=a_config(a_space("all", ""))), room="lab")

    assert found.room is not None
    assert found.room.status == "managed, and no longer asked for by the configuration"
    assert [problem.subject for problem in found.room.problems] == ["lab"]


def test_a_name_can_not_steer_the_terminal() -> None:
    scene = yard()
    room = replace(scene.observed.rooms["lab"], state={"m.room.name": {"name": "La\x1b[31mb"}})
    rooms = {**scene.observed.rooms, "lab": room}
    config = a_config(a_space("all", ""))
    found = ask(replace(scene, config=config, observed=replace(scene.observed, rooms=rooms)), room="lab")
    assert to_lines(found)[0].startswith("La�[31mb (lab) is a space")


# -- names -----------------------------------------------------------------------------------------------


def test_rooms_are_named_by_key_id_or_name() -> None:
    scene = yard()
    room_id = scene.observed.rooms["lab"].room_id
    for name in ("lab", room_id, "Lab", " LAB "):
        found = ask(scene, room=name)
        assert found.room is not None
        assert found.room.key == "lab"


def test_people_are_named_by_mxid_or_localpart() -> None:
    for name in ("bob", "@bob", "@bob:example.com", "bob:example.com"):
        assert one(yard(), name, "lab").person == "@bob:example.com"


@pytest.mark.parametrize(
    ("person", "room", "message", "remedy"),
    [
        ("annn", None, "nobody called @annn:example.com", "did you mean @ann:example.com?"),
        ("id-cid", None, "nobody called @id-cid:example.com", "did you mean @cid:example.com?"),
        ("quentin", None, "nobody called @quentin:example.com", "aim directory"),
        ("@", None, "no Matrix user id", "@evan:example.com"),
        ("@ann:elsewhere.example", None, "none of the managed rooms", "did you mean @ann:example.com?"),
        (STRANGER, None, "none of the managed rooms", "users of other servers"),
        (None, "shet", "no space or room is called 'shet'", "did you mean shed?"),
        (None, "xyzzy", "no space or room", "key"),
        (None, "general", "3 rooms are called 'general': all/general, lab/general, shed/general", "key"),
        (None, "!nowhere:example.com", "neither managed nor in a managed space", "key"),
        (None, "#nowhere:example.com", "neither managed nor in a managed space", "key"),
    ],
)
def test_what_nobody_knows_is_an_error_with_near_misses(
    person: str | None, room: str | None, message: str, remedy: str
) -> None:
    with pytest.raises(AimError) as raised:
        ask(yard(), person, room)
    assert message in raised.value.message
    assert remedy in raised.value.remedy


# -- accounts --------------------------------------------------------------------------------------------


def offboarding(*, enabled: bool = True) -> Scene:
    """`bob` left; deprovisioning is on or off."""
    scene = yard()
    given = {"deprovisioning": {"enabled": enabled}}
    config = scene.config.model_validate(
        {**scene.config.model_dump(exclude_unset=True), "user_provisioner": given}
    )
    directory = a_directory(
        ["ann", "cid", "dan"], {"leads": ["ann"], "labbers": ["ann"]}, roster=scene.roster
    )
    return replace(scene, config=config, directory=directory).with_accounts("ann", "bob", "cid")


def lines(scene: Scene) -> str:
    return "\n".join(to_lines(ask(scene, "bob")))


def test_who_left_and_is_about_to_be_locked() -> None:
    found = lines(offboarding())
    assert "account   yes" in found
    assert "next      lock_account: no longer in the directory" in found
    assert Against.LEAVING in against(one(offboarding(), "bob", "lab"))
    assert "about to be locked" in one(offboarding(), "bob", "lab").against[0].text


def test_who_would_be_locked() -> None:
    found = lines(offboarding(enabled=False))
    assert "would be locked with user_provisioner.deprovisioning.enabled" in found
    assert "lock_account" not in found


def test_who_waits_in_the_queue() -> None:
    scene = offboarding().with_account("bob", locked=True)
    scene = replace(scene, recorded=replace(scene.recorded, queue={"id-bob": a_queued("bob")}))
    found = lines(scene)
    assert "account   yes, locked" in found
    assert found.splitlines()[0].endswith("; the account is locked")
    assert (
        "queue     since 2029-12-22T12:00Z, no longer in the directory; erased from 2030-01-21T12:00Z on, "
        "if the directory, read after that, says so"
    ) in found
    assert "waits in the queue" in one(scene, "bob", "lab").against[0].text
    person = to_json(ask(scene, "bob"))["person"]
    assert isinstance(person, dict)
    assert (person["locked"], person["would_be_locked"], person["next"]) == (True, False, [])
    assert person["queue"]["due"] == "2030-01-21T12:00Z"


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"held_by": "root"}, "held by root: not erased before they let go"),
        ({"restored_by": "root"}, "restored by root: neither locked nor erased"),
        ({"erase_by": "root"}, "to be erased at once, as root said"),
        ({"ours": False}, "locked by somebody else before: never unlocked by us"),
        ({"found_due_at": NOW}, "found due at 2030-01-01T12:00Z by a clock in doubt"),
    ],
)
def test_what_people_decided_about_the_queue(more: dict[str, Any], text: str) -> None:
    scene = offboarding()
    queue = {"id-bob": a_queued("bob", **more)}
    found = lines(replace(scene, recorded=replace(scene.recorded, queue=queue)))
    assert text in found
    assert ("erased from" in found) == ("held_by" not in more and "restored_by" not in more)


def test_nobody_is_promised_an_erasure_while_that_is_off() -> None:
    scene = offboarding(enabled=False).with_account("bob", locked=True)
    queue = {"id-bob": a_queued("bob", erase_by="root")}
    found = lines(replace(scene, recorded=replace(scene.recorded, queue=queue)))
    assert "nobody is erased without user_provisioner.deprovisioning.enabled" in found
    assert "erased from" not in found
    assert "erased at once" not in found
    assert "the account is locked" in found.splitlines()[0]


def test_the_account_of_somebody_who_left_is_told_though_nobody_asked_for_it_in_rooms() -> None:
    scene = offboarding().with_account("bob", locked=True)
    scene = replace(scene, observed=replace(scene.observed, accounts=scene.roster.people(["ann", "cid"])))
    assert "account   yes, locked" in lines(scene)
