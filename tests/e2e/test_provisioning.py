"""Journeys: the first provisioning, the second run, and a directory that changes."""

from __future__ import annotations

from itertools import product

import pytest

from aim.errors import HomeserverRefused
from tests.e2e.conftest import NewStage
from tests.e2e.kit import Room, Stage, actions
from tests.e2e.organisation import PLATFORM

pytestmark = pytest.mark.e2e

PROTECTED = ("m.room.power_levels", "m.room.join_rules", "m.room.history_visibility", "m.room.server_acl")


async def test_a_plan_changes_nothing_anywhere(new_stage: NewStage) -> None:
    stage = await new_stage(embedded=True)
    await stage.register_everybody()
    before = sorted(stage.directory.iterdir())

    plain = await stage.aim("plan")
    detailed = await stage.aim("plan", "--json", "--detailed-exitcode")

    assert (plain.code, plain.err) == (0, "")
    assert (detailed.code, detailed.err) == (2, "")
    assert detailed.json["summary"]["by_type"]["create_space"] == 4
    assert stage.proxy.writes == []
    assert sorted(stage.directory.iterdir()) == before
    assert await stage.all_rooms() == []


GENERAL = {
    "id": "general",
    "properties": {"name": "General", "topic": "Anything", "suggested": True, "history_visibility": "shared"},
}
ARCHIVE = {"id": "archive", "properties": {"name": "Archive", "room_version": "11", "encrypted": True}}


async def test_the_first_provisioning_is_as_configured_and_the_second_run_does_nothing(stage: Stage) -> None:
    stage.configure(provisioner={"default_rooms": [GENERAL, ARCHIVE]})
    await stage.register_everybody()

    first = await stage.aim("apply", "--yes", "--detailed-exitcode")

    assert (first.code, first.err) == (2, ""), first
    rooms = await stage.assert_follows()
    for key, room in rooms.items():
        _assert_well_made(stage, key, room)
        assert room.members("join") == {stage.homeserver.bot}, (
            "people are invited, and nobody is made to join"
        )
    for space in ("company", "engineering", "platform", "sales"):
        _assert_default_rooms(stage, space, rooms)
    await stage.join_all()
    # Spaces that are not theirs are not shown to them.
    assert await stage.tree("ada", "company") == {"The Yard", "Engineering", "General", "Archive"}

    stage.proxy.forget()
    cycles = await stage.cycles()
    plan = await stage.aim("plan", "--json", "--detailed-exitcode")
    second = await stage.aim("apply", "--yes", "--detailed-exitcode")

    assert (plan.code, plan.json["actions"], plan.json["problems"]) == (0, [], [])
    assert (second.code, second.err) == (0, "")
    assert "nothing to do" in second.out
    assert stage.proxy.writes == []
    assert await stage.cycles() == cycles == ["done"]


def _assert_well_made(stage: Stage, key: str, room: Room) -> None:
    """Marker, version, guest access, and complete power levels."""
    create = room.content("m.room.create") or {}
    marker = {"version": 1, "instance": stage.homeserver.appservice.id, "key": key}
    assert create["aim.managed"] == marker
    assert room.is_space == ("/" not in key)
    assert room.version == ("11" if key.endswith("/archive") else "12")
    assert room.content("m.room.guest_access") == {"guest_access": "forbidden"}
    levels = dict(room.levels)
    users = levels.pop("users", {})
    # From version 12 on the creator stands above all levels and must not be named.
    assert (stage.homeserver.bot in users) == (room.version == "11"), key
    assert users.get(stage.homeserver.bot, 100) == 100
    assert levels == {
        "ban": 50,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.join_rules": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            "m.room.tombstone": 100 if room.version == "11" else 150,
            "m.room.topic": 50,
            "m.space.child": 50,
            **({} if room.is_space else {"m.call.member": 0, "org.matrix.msc3401.call.member": 0}),
        },
        "events_default": 100 if room.is_space else 0,
        "invite": 50,
        "kick": 50,
        "notifications": {"room": 50},
        "redact": 50,
        "state_default": 50,
        "users_default": 0,
    }, key


def _assert_default_rooms(stage: Stage, space: str, rooms: dict[str, Room]) -> None:
    """Both of a space, as their properties say, open to the members of the space."""
    general, archive = rooms[f"{space}/general"], rooms[f"{space}/archive"]
    assert (general.name, archive.name) == ("General", "Archive")
    assert general.content("m.room.topic") == {"topic": "Anything"}
    assert general.content("m.room.history_visibility") == {"history_visibility": "shared"}
    assert general.content("m.room.encryption") is None
    assert archive.content("m.room.encryption") == {"algorithm": "m.megolm.v1.aes-sha2"}
    allow = [{"type": "m.room_membership", "room_id": rooms[space].room_id}]
    for room in (general, archive):
        assert room.content("m.room.join_rules") == {"join_rule": "restricted", "allow": allow}
        assert room.content("m.space.parent", rooms[space].room_id) == {
            "via": [stage.homeserver.server_name],
            "canonical": True,
        }
    via = [stage.homeserver.server_name]
    assert rooms[space].content("m.room.join_rules") == {"join_rule": "invite"}
    assert rooms[space].content("m.space.child", general.room_id) == {"via": via, "suggested": True}
    assert rooms[space].content("m.space.child", archive.room_id) == {"via": via}


async def test_a_moderator_can_not_change_what_guards_a_room(stage: Stage) -> None:
    stage.configure(provisioner={"default_rooms": [GENERAL, ARCHIVE]})
    await stage.provision()
    await stage.join_all("ada")
    ada = stage.homeserver.client("ada")
    rooms = await stage.rooms()
    children = [room.room_id for key, room in rooms.items() if key in {"sales", "sales/general"}]

    for key, event_type in product(("engineering", "engineering/general", "engineering/archive"), PROTECTED):
        room = rooms[key]
        assert room.levels["users"][ada.mxid] == 50
        content = dict(room.content(event_type) or {"allow": ["*"]})
        if event_type == "m.room.power_levels":
            # Nothing beyond her own level, which nobody could do.
            content["users"] = {**content["users"], stage.mxid("bela"): 50}
        with pytest.raises(HomeserverRefused) as refusal:
            await ada.put_state(room.room_id, event_type, content | {"changed": True})
        assert refusal.value.status == 403, (key, event_type)

    # What a moderator is for works, so the refusals were about what was refused.
    await ada.put_state(rooms["engineering"].room_id, "m.room.topic", {"topic": "by a moderator"})
    await ada.put_state(rooms["engineering"].room_id, "m.space.child", {"via": ["example.test"]}, children[0])
    await ada.put_state(rooms["engineering/archive"].room_id, "m.room.name", {"name": "Cellar"})


async def test_people_who_move_rise_fall_leave_and_come_back(stage: Stage) -> None:
    await stage.provision()
    await stage.join_all()
    changed = stage.organisation.moved("hana", "engineering").promoted("bela", "engineering-moderators")
    stage.give(changed.demoted("gero", "sales-moderators").left("mira"))

    found = actions(await stage.plan())
    await stage.apply()

    sales = "cn=sales-moderators,dc=yard,dc=example"
    reasons = {
        ("kick", "sales", "hana"): f"no longer in ou=sales,dc=yard,dc=example or {sales}",
        ("invite", "engineering", "hana"): "member of ou=engineering,dc=yard,dc=example",
        ("set_power_level", "engineering", "bela"): (
            "member of cn=engineering-moderators,dc=yard,dc=example, which gives level 50"
        ),
        ("set_power_level", "sales", "gero"): "no group of theirs gives more than level 0 here",
        ("kick", "company", "mira"): "no longer in the directory",
        ("kick", "sales", "mira"): "no longer in the directory",
    }
    assert {key: action["reason"] for key, action in found.items()} == {
        (kind, room, stage.mxid(uid)): reason
        for (kind, space, uid), reason in reasons.items()
        for room in (space, f"{space}/general")
    }
    rooms = await stage.assert_follows()
    assert rooms["engineering"].levels["users"][stage.mxid("bela")] == 50
    # Who was not meant has stayed in, and was not asked anew.
    assert rooms["sales"].members("join") == stage.mxids("gero", "ivan", "jule", "lino") | {
        stage.homeserver.bot
    }
    assert rooms["sales/general"].members("leave") == stage.mxids("hana", "mira")

    stage.give(stage.organisation.joined("mira", PLATFORM))
    found = actions(await stage.plan())
    await stage.apply()

    platform = "member of ou=platform,ou=engineering,dc=yard,dc=example"
    back = {
        "company": "in the directory",
        # The unit holds everybody below it, so it gives more than the subspace does.
        "engineering": "member of ou=engineering,dc=yard,dc=example",
        "platform": platform,
    }
    assert {key: action["reason"] for key, action in found.items()} == {
        ("invite", room, stage.mxid("mira")): reason
        for space, reason in back.items()
        for room in (space, f"{space}/general")
    }
    await stage.assert_follows()
    assert (await stage.plan())["actions"] == []
