"""Who gets an account from us, what waits for it, and who gets none."""

from __future__ import annotations

import json
import random as shuffling
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aim.config import Config
from aim.directory.roster import NOBODY
from aim.planner.actions import (
    AnyAction,
    CreateSpace,
    Invite,
    Join,
    Kick,
    RegisterAccount,
    SetPowerLevel,
)
from aim.planner.against import Against, obstacles
from aim.planner.document import to_document, to_text
from aim.planner.keys import Keys
from aim.planner.subjects import person_of, place_of
from aim.world.accounts import Account
from tests.unit.model import BOT, localpart, mxid
from tests.unit.strategies import examples, pasts, renumbered, scenes, some_keys
from tests.unit.worlds import (
    NOW,
    Scene,
    a_config,
    a_directory,
    a_room,
    a_scene,
    a_seen,
    a_space,
    a_user,
    accept_invites,
    an_observed,
    cycle,
    identities,
    provisioned,
)

ANN, BOB, CID = mxid("ann"), mxid("bob"), mxid("cid")


def config(register_users: str = "if-missing", **more: Any) -> Config:
    return a_config(a_space("lab", ("boss", 50), ""), register_users=register_users, **more)


def lab(*accounts: str, given: Config | None = None) -> Scene:
    """Ann, who is the boss, Bob and Cid; these have accounts."""
    directory = a_directory(["ann", "bob", "cid"], {"boss": ["ann"]})
    return a_scene(given or config(), directory, accounts)


def registered(actions: Iterable[AnyAction]) -> list[str]:
    return [action.person for action in actions if isinstance(action, RegisterAccount)]


def after(scene: Scene, person: str) -> dict[str, tuple[str, ...]]:
    """Type → what comes before it, of the actions in rooms on this person."""
    found = (action for action in scene.plan().actions if action.target == person and action.space)
    return {str(action.type): action.after for action in found}


# -- who -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("register_users", ["yes", "if-missing"])
def test_whoever_has_no_account_gets_one_first_of_all(register_users: str) -> None:
    plan = lab("cid", given=config(register_users)).plan()
    assert identities(plan.actions)[:2] == [f"register_account {ANN}", f"register_account {BOB}"]
    ann = plan.actions[0]
    assert isinstance(ann, RegisterAccount)
    assert (ann.user_id, ann.room, ann.reason) == ("id-ann", ANN, "in the directory, and without an account")
    [first, *_] = json.loads(to_text(to_document(plan, NOW)))["actions"]
    assert first == {
        "type": "register_account",
        "target": ANN,
        "room": None,
        "room_id": None,
        "reason": "in the directory, and without an account",
        "held": False,
        "after": [],
        "details": {"user_id": "id-ann"},
    }


def test_without_being_told_to_nobody_gets_one() -> None:
    assert registered(lab("cid", given=config("no")).plan().actions) == []
    assert registered(lab("cid", given=a_config(a_space("lab", ""))).plan().actions) == []


def test_who_is_disabled_contested_in_conflict_or_ourselves_gets_none() -> None:
    users = [a_user("ann"), a_user("bob", "id-new"), a_user("cid", active=False), a_user(localpart(BOT))]
    directory = a_directory(users, contested=["dan"])
    scene = a_scene(config(), directory, ()).with_seen(a_seen("bob", "id-old"), "ann")
    assert registered(scene.plan().actions) == [ANN]


def test_of_another_source_that_nobody_has_vouched_for_nobody_gets_one() -> None:
    """Who has another name there would have two accounts, and a name is given once."""
    users = [a_user(name, f"new-{name}") for name in ("ann", "bob", "cid", "dan.miller")]
    scene = a_scene(config(), a_directory(users, {"boss": ["ann"]}), ("ann", "bob", "cid", "dan"))
    scene = scene.with_seen("ann", "bob", "cid", "dan")
    assert scene.desired.switched
    assert registered(scene.plan().actions) == []
    assert (scene.plan().pending, after(scene, mxid("dan.miller"))) == (1, {})


def test_who_is_in_no_space_gets_one_too() -> None:
    directory = a_directory(["ann", "bob"], {"boss": ["ann"]})
    scene = a_scene(a_config(a_space("lab", "boss"), register_users="yes"), directory, ())
    assert registered(scene.plan().actions) == [ANN, BOB]


def test_whose_account_is_known_to_be_deactivated_is_a_problem_and_not_tried() -> None:
    given = config(user_provisioner={})
    scene = lab("cid", given=given).with_accounts(Account("ann", deactivated=True), "cid")
    plan = scene.plan()
    assert registered(plan.actions) == [BOB]
    assert after(scene, ANN) == {}
    [problem] = [problem for problem in plan.problems if problem.subject == ANN]
    assert "reactivate it" in problem.message


def test_it_is_nothing_destructive() -> None:
    directory = replace(lab().directory, filling=True)
    scene = replace(lab(), directory=directory).recording(recovery_since=NOW)
    assert registered(scene.plan().due) == [ANN, BOB, CID]


# -- what waits for it -----------------------------------------------------------------------------------


def test_in_a_new_space_invites_and_levels_wait_for_the_account() -> None:
    scene = lab("cid")
    made, ann, bob = "create_space lab", f"register_account {ANN}", f"register_account {BOB}"
    assert after(scene, ANN) == {"set_power_level": (made, ann), "invite": (made, ann)}
    assert after(scene, BOB) == {"invite": (made, bob)}
    assert after(scene, CID) == {"invite": (made,)}
    [space] = [action for action in scene.plan().actions if isinstance(action, CreateSpace)]
    assert space.after == ()


def test_in_a_space_that_exists_too() -> None:
    scene = provisioned(config("no"), a_directory(["cid"], {"boss": ["cid"]}))
    new = a_directory(["ann", "bob", "cid"], {"boss": ["ann", "cid"]}, roster=scene.roster)
    scene = replace(scene, config=config(), directory=new)
    ann = f"register_account {ANN}"
    assert after(scene, ANN) == {"set_power_level": (ann,), "invite": (ann,)}
    assert after(scene, CID) == {}


def test_joins_wait_for_it() -> None:
    scene = lab("cid", given=config(membership="join", default_rooms=[{"id": "talk"}]))
    joins = [action for action in scene.plan().actions if isinstance(action, Join)]
    assert {action.person for action in joins} == {ANN, BOB, CID}
    for action in joins:
        assert (f"register_account {action.person}" in action.after) is (action.person != CID)


def test_who_is_invited_without_an_account_anyway_waits_for_none() -> None:
    scene = lab("cid", given=config(invite_before_first_login=True))
    assert registered(scene.plan().actions) == [ANN, BOB]
    assert after(scene, ANN) == {"set_power_level": ("create_space lab",), "invite": ("create_space lab",)}


def test_who_has_to_go_goes_whether_or_not_an_account_is_made() -> None:
    directory = a_directory(["ann", "bob"], {"boss": ["ann"]})
    room = a_room(directory.roster, "lab", ["ann"], invited=["bob"], levels={"bob": 100})
    scene = Scene(
        a_config(a_space("lab", "boss"), register_users="yes"),
        directory,
        an_observed(directory.roster, ["ann"], room),
    ).recording(source="ldif")
    found = {type(action): action.after for action in scene.plan().actions if action.target == BOB}
    assert found == {RegisterAccount: (), Kick: (), SetPowerLevel: ()}


def test_nobody_is_pending_who_gets_one() -> None:
    scene = lab("cid")
    assert scene.plan().pending == 0
    assert all(problem.subject != "pending" for problem in scene.plan().problems)
    waiting = replace(scene, config=config("no"))
    assert waiting.plan().pending == 2


def test_nothing_stands_against_who_gets_one() -> None:
    def against(scene: Scene) -> list[Against]:
        world, plan = scene.world, scene.plan()
        found = obstacles(world, plan, person_of(world, ANN), place_of(world, "lab"), ())
        return [obstacle.kind for obstacle in found]

    assert against(lab("cid")) == []
    assert against(lab("cid", given=config("no"))) == [Against.PENDING]


# -- what comes of it ------------------------------------------------------------------------------------


def test_one_cycle_makes_the_accounts_and_asks_their_people_in() -> None:
    scene = cycle(lab("cid"))
    assert scene.roster.localparts(scene.observed.accounts) == ["ann", "bob", "cid"]
    assert (scene.members("lab"), scene.levels("lab")) == (["ann", "bob", "cid"], {"ann": 50})
    assert scene.plan().actions == ()


def registering(scene: Scene) -> Scene:
    """The same, with a source that has accounts made."""
    source = config().source
    return replace(scene, config=scene.config.model_copy(update={"source": source}))


@examples(100)
@given(st.data())
def test_each_newcomer_once_and_nothing_that_needs_them_before(data: st.DataObject) -> None:
    made = data.draw(scenes(limits=True, accounts=data.draw(st.booleans())))
    scene = data.draw(pasts(registering(made)))
    plan, names = scene.plan(), scene.roster.localparts
    desired = scene.desired
    newcomers = scene.directory.everyone - scene.observed.accounts - desired.hands_off
    if desired.switched:
        newcomers = NOBODY
    assert registered(plan.actions) == [mxid(name) for name in names(newcomers)]
    known = identities(plan.actions)
    assert len(known) == len(set(known))
    accounts = {mxid(name) for name in names(scene.observed.accounts)}
    for action in plan.actions:
        assert set(action.after) <= set(known)
        if isinstance(action, Join) or (isinstance(action, Invite) and not desired.invite_before_login):
            assert action.person in accounts or f"register_account {action.person}" in action.after


@examples(100)
@given(scenes())
def test_after_it_all_is_as_if_they_had_always_had_accounts(scene: Scene) -> None:
    scene = registering(scene)
    after_it = cycle(scene.approve(scene.plan()))
    assert registered(after_it.plan().actions) == []
    # Whoever left with an earlier account is asked once the new one is seen to be there.
    again = cycle(after_it.approve(after_it.plan()))
    for quiet in (again, accept_invites(again)):
        assert identities(quiet.plan().due) == []


@examples(60)
@given(st.data(), some_keys, st.randoms(use_true_random=False))
def test_neither_keys_nor_order_matter(data: st.DataObject, keys: Keys, random: shuffling.Random) -> None:
    scene = registering(data.draw(scenes(limits=True)))
    whole, part = scene.plan(), scene.plan(keys)
    assert part.actions == tuple(action for action in whole.actions if keys.cover(action))
    assert to_text(to_document(whole)) == to_text(to_document(renumbered(scene, random).plan()))
