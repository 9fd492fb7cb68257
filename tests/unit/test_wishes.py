"""Who left by their own wish, how long that counts, and what is remembered of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from aim.planner.memory import Memory, remember
from tests.unit.model import mxid
from tests.unit.worlds import (
    NO_LIMITS,
    NOW,
    Scene,
    a_config,
    a_directory,
    a_space,
    accept_invites,
    cycle,
    identities,
    provisioned,
)

ROOM = "all/talk"


def at(when: datetime) -> int:
    return int(when.timestamp() * 1000)


def staff(names: list[str], scene: Scene | None = None) -> Any:
    """A directory in which these of ann, bob and cid are in the group."""
    return a_directory(["ann", "bob", "cid"], {"staff": names}, roster=scene.roster if scene else None)


def settled(names: list[str] | None = None) -> Scene:
    config = a_config(a_space("all", "staff"), default_rooms=[{"id": "talk"}], guards=NO_LIMITS)
    return provisioned(config, staff(names or ["ann", "bob"]))


def with_group(scene: Scene, *names: str) -> Scene:
    return replace(scene, directory=staff(list(names), scene))


def gone_from_room(scene: Scene, name: str = "bob", when: datetime | None = None) -> Scene:
    """They left the room by themselves."""
    others = [member for member in scene.members(ROOM) if member != name]
    return scene.with_room(ROOM, joined=others, left={name: at(when or scene.now)})


def invited(scene: Scene) -> list[str]:
    return [identity for identity in identities(scene.plan().due) if identity.startswith("invite")]


def memory_of(scene: Scene) -> Memory:
    return remember(scene.world, scene.plan())


def test_who_left_a_room_is_not_asked_again_however_long_ago() -> None:
    scene = gone_from_room(settled())
    assert invited(scene) == []
    assert invited(scene.later(days=365)) == []
    assert not memory_of(scene)


def test_a_wish_ends_when_they_lose_the_right_and_get_it_again() -> None:
    scene = gone_from_room(settled()).later(hours=1)
    lost = with_group(scene, "ann")
    assert memory_of(lost).lapsed == {"all": ("bob",), ROOM: ("bob",)}
    after = cycle(lost)
    assert after.roster.localparts(after.recorded.lapsed[ROOM]) == ["bob"]
    assert not memory_of(after)
    back = with_group(after.later(hours=1), "ann", "bob")
    assert memory_of(back).regained == {"all": ("bob",), ROOM: ("bob",)}
    assert f"invite {ROOM} {mxid('bob')}" in invited(back)
    again = cycle(back)
    assert again.recorded.lapsed[ROOM] == again.roster.people([])
    assert again.recorded.regained[ROOM] == {again.roster.number("bob"): back.now}
    assert not memory_of(again)


def test_regaining_counts_until_they_leave_once_more() -> None:
    back = cycle(with_group(cycle(with_group(settled(), "ann")).later(hours=1), "ann", "bob"))
    declined = back.with_room(ROOM, invited=[], left={"bob": at(back.now + timedelta(seconds=1))}).later(
        hours=1
    )
    assert invited(declined) == []
    # The invite never went out, and the leave is older.
    before = {"bob": at(back.now - timedelta(seconds=1))}
    assert invited(back.with_room(ROOM, invited=[], left=before).later(hours=1)) == [
        f"invite {ROOM} {mxid('bob')}"
    ]


def test_who_left_before_they_were_ever_entitled_is_asked() -> None:
    scene = settled().with_room(ROOM, joined=["ann", "bob"], left={"cid": at(NOW)})
    assert memory_of(scene).regained == {}
    new = with_group(scene, "ann", "bob", "cid").later(hours=1)
    assert memory_of(new).regained == {ROOM: ("cid",)}
    assert f"invite {ROOM} {mxid('cid')}" in invited(new)
    assert not memory_of(cycle(new))


def test_without_a_record_of_the_room_a_wish_stands() -> None:
    scene = gone_from_room(settled())
    forgotten = replace(scene, recorded=replace(scene.recorded, entitled={}))
    assert memory_of(forgotten).regained == {}
    assert invited(forgotten) == []


def test_a_deactivated_account_has_no_wishes_and_is_asked_when_it_is_back() -> None:
    scene = gone_from_room(settled())
    away = replace(scene, observed=replace(scene.observed, accounts=scene.roster.people(["ann", "cid"])))
    away = away.later(days=2)
    assert memory_of(away).lapsed == {ROOM: ("bob",)}
    assert invited(away) == []
    after = cycle(away)
    assert not memory_of(after)
    back = replace(after, observed=replace(after.observed, accounts=scene.observed.accounts)).later(days=1)
    assert memory_of(back).regained == {ROOM: ("bob",)}
    assert invited(back) == [f"invite {ROOM} {mxid('bob')}"]


def test_those_in_doubt_neither_lapse_nor_regain() -> None:
    scene = settled()
    config = a_config(a_space("all", "unknown"), default_rooms=[{"id": "talk"}], guards=NO_LIMITS)
    assert memory_of(replace(scene, config=config)).lapsed == {}
    contested = a_directory(["ann"], {"staff": ["ann"]}, roster=scene.roster, contested=["bob"])
    assert memory_of(replace(scene, directory=contested)).lapsed == {}


# -- leaves that we caused ------------------------------------------------------------------------


def caused(scene: Scene, *names: str) -> Scene:
    room_id = scene.observed.rooms[ROOM].room_id
    return replace(scene, recorded=replace(scene.recorded, caused={room_id: scene.roster.people(names)}))


def test_a_leave_that_we_caused_is_no_wish() -> None:
    scene = caused(gone_from_room(settled()), "bob")
    assert invited(scene) == [f"invite {ROOM} {mxid('bob')}"]
    assert memory_of(scene).returned == {}


def test_who_is_in_again_has_wishes_again() -> None:
    scene = caused(settled(), "bob")
    room_id = scene.observed.rooms[ROOM].room_id
    assert memory_of(scene).returned == {room_id: ("bob",)}
    after = accept_invites(cycle(scene))
    assert not memory_of(after)
    assert invited(gone_from_room(after)) == []


def test_who_is_about_to_leave_is_not_taken_for_returned() -> None:
    """Another cycle may have recorded it a moment ago."""
    scene = with_group(caused(settled(), "bob"), "ann")
    assert f"kick {ROOM} {mxid('bob')}" in identities(scene.plan().actions)
    assert memory_of(scene).returned == {}


def test_each_part_alone_is_worth_remembering() -> None:
    assert Memory(lapsed={"a": ("ann",)})
    assert Memory(regained={"a": ("ann",)})
    assert Memory(returned={"!a": ("ann",)})
