"""Guards: the arithmetic of the limits, what counts, what is held, and what releases it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from aim.planner.actions import AbandonSpace, ActionType, AnyAction, Kick, ReleaseRoom
from aim.planner.guards import Trip, Verdict, judge
from aim.planner.world import Limit
from aim.world.recorded import Approval, Done
from tests.unit.model import mxid
from tests.unit.worlds import (
    Scene,
    a_config,
    a_directory,
    a_space,
    apply_plan,
    cycle,
    identities,
    provisioned,
)


def staff(count: int) -> list[str]:
    return [f"e{number:03}" for number in range(count)]


def company(count: int, *spaces: Any, **more: Any) -> Scene:
    """So many people, all moderators, in one space, unless other spaces are given."""
    config = a_config(*(spaces or (a_space("all", "", ("mods", 50)),)), **more)
    return provisioned(config, a_directory(staff(count), {"mods": staff(count)}))


def left(scene: Scene, gone: Iterable[str]) -> Scene:
    """These people have left the directory."""
    there = [user for user in scene.directory.users if user.localpart not in set(gone)]
    groups = {
        group.id: set(scene.roster.localparts(group.members)) - set(gone) for group in scene.directory.groups
    }
    return replace(scene, directory=a_directory(there, groups, roster=scene.roster))


def plain(scene: Scene, names: Iterable[str]) -> Scene:
    """These people are no moderators any more."""
    everyone = [user.localpart for user in scene.directory.users]
    mods = {"mods": set(everyone) - set(names)}
    return replace(scene, directory=a_directory(everyone, mods, roster=scene.roster))


def holds(scene: Scene) -> set[str]:
    return {str(action.type) for action in scene.plan().held}


# -- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("people", "limit"), [(0, 3), (1, 3), (29, 3), (30, 3), (39, 3), (40, 4), (49, 4), (1000, 100), (812, 81)]
)
def test_the_limit_is_ten_percent_but_at_least_three(people: int, limit: int) -> None:
    assert Limit().of(people) == limit


@pytest.mark.parametrize(
    ("limit", "people", "allowed"),
    [
        (Limit(0, 10), 9, 0),
        (Limit(0, 0), 1000, 0),
        (Limit(5, 0), 1000, 5),
        (Limit(0, 100), 7, 7),
        (Limit(0, 29), 100, 29),
        (Limit(0, 7), 100, 7),
    ],
)
def test_both_parts_of_a_limit_can_be_chosen(limit: Limit, people: int, allowed: int) -> None:
    assert limit.of(people) == allowed


@pytest.mark.parametrize(
    ("count", "gone", "held"), [(20, 3, False), (20, 4, True), (50, 5, False), (50, 6, True)]
)
def test_kicks_above_the_limit_are_all_held(*, count: int, gone: int, held: bool) -> None:
    plan = left(company(count), staff(count)[:gone]).plan()
    kicks = [action for action in plan.actions if action.type == "kick"]
    assert len(kicks) == gone
    assert {action.held for action in kicks} == {held}
    assert bool(plan.trips) == held


def test_the_trip_says_where_how_many_and_what_the_limit_is() -> None:
    plan = left(plain(company(20), staff(4)), []).plan()
    assert plan.trips == (Trip("demotions", "all", 4, 3), Trip("demotions", "organisation", 4, 3))
    assert [trip.message for trip in plan.trips] == [
        "demotions in space all: 4 people within an hour, the limit is 3",
        "demotions in the organisation: 4 people within an hour, the limit is 3",
    ]
    assert plan.holding == frozenset(identities(plan.held))


def test_the_trip_says_how_many_of_them_were_done_before() -> None:
    scene = cycle(left(company(20), staff(2)))
    plan = left(scene, staff(20)[:4]).plan()
    assert [trip.message for trip in plan.trips if trip.kind == "kicks"] == [
        "kicks in space all: 4 people within an hour (2 now, 2 before), the limit is 3",
        "kicks in the organisation: 4 people within an hour (2 now, 2 before), the limit is 3",
    ]


def test_an_approval_is_used_up_by_what_it_let_go() -> None:
    scene = left(company(20), staff(4))
    scene = cycle(scene.approve(scene.plan()))
    assert "p00" not in scene.members("all")
    assert scene.recorded.approvals == {}


def test_each_kind_has_its_own_limit() -> None:
    scene = left(plain(company(40), staff(4)), staff(40)[-4:])
    assert (holds(scene), len(scene.plan().due)) == ({"set_power_level"}, 4)


def test_limits_are_configurable_by_kind_and_scope() -> None:
    guards = {"kicks": {"per_space": {"at_least": 1, "percent": 0}, "organisation": {"at_least": 100}}}
    scene = company(20, a_space("all", ""), guards=guards)
    assert holds(left(scene, staff(1))) == set()
    assert left(scene, staff(2)).plan().trips == (Trip("kicks", "all", 2, 1),)


def test_a_person_counts_once_however_many_rooms_they_leave() -> None:
    rooms = [{"id": f"r{number}"} for number in range(5)]
    scene = left(company(20, a_space("all", ""), default_rooms=rooms), staff(3))
    assert len(scene.plan().due) == 3 * 6
    assert holds(scene) == set()


def test_people_of_many_spaces_add_up_in_the_organisation() -> None:
    # Six spaces of six people: one leaver each is little in a space, and too many in a company of 36.
    groups = {f"g{number}": staff(36)[number * 6 : number * 6 + 6] for number in range(6)}
    config = a_config(*(a_space(group, group) for group in groups))
    scene = provisioned(config, a_directory(staff(36), groups))
    leavers = [people[0] for people in groups.values()]
    there = [name for name in staff(36) if name not in leavers]
    remaining = {group: people[1:] for group, people in groups.items()}

    def without(count: int) -> Scene:
        gone = set(leavers[:count])
        return replace(
            scene,
            directory=a_directory(
                [name for name in staff(36) if name not in gone],
                {group: [name for name in people if name not in gone] for group, people in groups.items()},
                roster=scene.roster,
            ),
        )

    assert without(3).plan().trips == ()
    assert without(4).plan().trips == (Trip("kicks", "organisation", 4, 3),)
    assert len(without(6).plan().held) == len(remaining) == len(there) - 24


def test_in_a_small_space_of_a_large_organisation_its_own_limit_counts() -> None:
    groups = {"lab": staff(8)}
    scene = provisioned(a_config(a_space("all", ""), a_space("lab", "lab")), a_directory(staff(200), groups))
    moved = replace(scene, directory=a_directory(staff(200), {"lab": staff(4)}, roster=scene.roster))
    plan = moved.plan()
    assert plan.trips == (Trip("kicks", "lab", 4, 3),)
    assert len(plan.held) == 4
    # A trip in one space holds that kind everywhere.
    assert len(left(moved, [staff(200)[-1]]).plan().held) >= 5


def test_additive_actions_go_on() -> None:
    scene = company(20)
    newcomers = a_directory([*staff(20)[10:], "new"], {"mods": ["new", *staff(20)[10:]]}, roster=scene.roster)
    accounts = scene.roster.people([*staff(20), "new"])
    scene = replace(scene, directory=newcomers, observed=replace(scene.observed, accounts=accounts))
    plan = scene.plan()
    assert identities(plan.due) == [f"set_power_level all {mxid('new')} 50", f"invite all {mxid('new')}"]
    assert {str(action.type) for action in plan.held} == {"kick", "set_power_level"}


def test_who_is_not_kicked_is_not_demoted_either() -> None:
    config = a_config(a_space("all", "", ("mods", 50)))
    scene = provisioned(config, a_directory(staff(20), {"mods": ["e000"]}))
    gone = left(scene, staff(20)[:4])
    plan = gone.plan()
    # One demotion alone would be within the limit; four kicks are not.
    assert {action.identity for action in plan.held} == {
        f"set_power_level all {mxid('e000')} 0",
        *(f"kick all {mxid(name)}" for name in staff(20)[:4]),
    }
    assert any("held with the kicks of the same people" in trip.message for trip in plan.trips)
    assert gone.approve(plan).plan().held == ()


def test_the_levels_a_new_space_begins_with_demote_nobody() -> None:
    config = a_config(a_space("all", ""), a_space("news", ("", -1)))
    scene = replace(company(20, a_space("all", "")), config=config)
    plan = scene.plan()
    assert (plan.held, plan.trips) == ((), ())
    assert len([action for action in plan.due if action.type == "set_power_level"]) == 20


# -- what counts ----------------------------------------------------------------------------------


def test_strangers_who_came_in_later_do_not_count() -> None:
    scene = company(20)
    strangers = [f"s{number}" for number in range(50)]
    scene = scene.with_room("all", joined=[*staff(20), *strangers])
    assert len(scene.plan().due) == 50
    assert scene.plan().held == ()
    # And leave room for those who do.
    assert len(left(scene, staff(3)).plan().due) == 50 + 2 * 3


def test_strangers_go_even_while_others_are_held() -> None:
    scene = left(company(20).with_room("all", joined=[*staff(20), "eve"]), staff(9))
    assert f"kick all {mxid('eve')}" in identities(scene.plan().due)
    assert f"kick all {mxid('e000')}" in identities(scene.plan().held)


def test_who_was_in_a_room_before_we_knew_it_counts() -> None:
    scene = company(20).with_room("all", joined=[*staff(20), "s1", "s2", "s3", "s4"])
    scene = replace(scene, recorded=replace(scene.recorded, entitled={}))
    assert holds(scene) == {"kick"}


def done(minutes_ago: float, person: str, space: str = "all", kind: str = "kicks") -> Any:
    return lambda scene: Done(
        f"kick {space} {mxid(person)}", kind, space, person, scene.now - timedelta(minutes=minutes_ago)
    )


def with_past(scene: Scene, *past: Any) -> Scene:
    return replace(scene, recorded=replace(scene.recorded, done=tuple(make(scene) for make in past)))


@pytest.mark.parametrize(
    ("past", "held"),
    [
        ([], False),
        ([done(59, "x"), done(59, "y")], True),
        ([done(60, "x"), done(61, "y")], False),
        ([done(0, "x"), done(60, "y")], False),
        # The same person again is one person; another kind or space is another count.
        ([done(1, "x"), done(2, "x")], False),
        ([done(1, "e000"), done(2, "e001")], False),
        ([done(1, "x", kind="demotions"), done(1, "y", kind="demotions")], False),
        ([done(1, "x", space="elsewhere"), done(1, "y", space="elsewhere")], True),
        # A clock that was set back must not make anything forgotten.
        ([done(-90, "x"), done(-90, "y")], True),
    ],
)
def test_what_was_done_in_the_last_hour_counts(*, past: list[Any], held: bool) -> None:
    scene = with_past(left(company(20, a_space("all", "")), staff(2)), *past)
    assert bool(scene.plan().held) is held


def test_who_was_removed_still_counts_as_one_of_the_people_concerned() -> None:
    # 40 people: limit 4. After two are gone the limit must not have shrunk with them.
    scene = cycle(left(company(40, a_space("all", "")), staff(2)))
    assert len(scene.members("all")) == 38
    scene = left(scene, staff(4))
    assert holds(scene) == set()
    assert holds(left(scene, staff(5))) == {"kick"}


# -- release --------------------------------------------------------------------------------------


def test_time_releases_nothing() -> None:
    scene = with_past(left(company(20, a_space("all", "")), staff(2)), done(30, "x"), done(30, "y"))
    scene = cycle(scene)
    assert len(scene.recorded.held) == 2
    later = scene.later(days=3)
    assert later.plan().trips == (Trip("kicks", "earlier", 2, 0),)
    assert "only approval releases them" in later.plan().trips[0].message
    assert len(later.plan().held) == 2


def test_others_of_that_kind_may_go_once_the_limit_is_no_longer_passed() -> None:
    scene = cycle(with_past(left(company(20, a_space("all", "")), staff(2)), done(30, "x"), done(30, "y")))
    later = left(scene.later(days=3), [staff(20)[-1]])
    assert identities(later.plan().due) == [f"kick all {mxid('e019')}"]
    assert len(later.plan().held) == 2


def test_a_world_that_no_longer_asks_releases_what_is_held() -> None:
    before = company(20, a_space("all", ""))
    scene = cycle(left(before, staff(9)))
    assert len(scene.recorded.held) == 9
    back = cycle(replace(scene, directory=before.directory))
    assert (back.recorded.held, back.plan().actions) == (frozenset(), ())
    # Asked for anew, it is judged anew.
    assert holds(left(back, staff(2))) == set()


def test_approval_lets_exactly_those_go_and_nobody_else() -> None:
    scene = left(company(20, a_space("all", "")), staff(5))
    approved = scene.approve(scene.plan())
    more = left(approved, staff(6))
    assert identities(more.plan().held) == [f"kick all {mxid('e005')}"]
    assert len(more.plan().due) == 5
    after = cycle(more)
    assert after.members("all") == staff(20)[5:]
    assert after.recorded.held == {f"kick all {mxid('e005')}"}


def test_what_was_approved_counts_for_those_that_follow() -> None:
    scene = left(company(20, a_space("all", "")), staff(5))
    after = cycle(scene.approve(scene.plan()))
    assert holds(left(after.later(minutes=10), staff(6))) == {"kick"}
    assert holds(left(after.later(minutes=60), staff(6))) == set()


def test_where_everything_is_approved_no_limit_is_reported() -> None:
    scene = left(company(20, a_space("all", "")), staff(5))
    plan = scene.approve(scene.plan()).plan()
    assert (plan.held, plan.trips, plan.holding) == ((), (), frozenset())


def test_an_approval_of_something_else_is_worth_nothing() -> None:
    scene = left(company(20, a_space("all", "")), staff(5))
    other = Approval(f"kick lab {mxid('e000')}", "admin", scene.now + timedelta(hours=1))
    scene = replace(scene, recorded=replace(scene.recorded, approvals={other.identity: other}))
    assert len(scene.plan().held) == 5


def test_a_held_demotion_is_held_in_every_room() -> None:
    scene = company(20, a_space("all", "", ("mods", 50)), default_rooms=[{"id": "talk"}])
    assert len(plain(scene, staff(4)).plan().held) == 8


# -- recovery -------------------------------------------------------------------------------------


def recovering(scene: Scene) -> Scene:
    """The database is lost."""
    return replace(scene, recorded=type(scene.recorded)())


def test_in_recovery_even_one_is_held_strangers_included() -> None:
    scene = recovering(company(20).with_room("all", joined=[*staff(20), "eve"]))
    plan = scene.plan()
    assert identities(plan.held) == [f"kick all {mxid('eve')}"]
    assert plan.trips == (Trip("kicks", "recovery", 1, 0),)
    assert "in recovery nothing is removed without approval" in plan.trips[0].message
    assert [problem.subject for problem in plan.problems] == ["recovery"]


def test_in_recovery_a_stranger_who_comes_later_is_held_too() -> None:
    scene = cycle(recovering(company(20).with_room("all", joined=[*staff(20), "eve"])))
    scene = scene.with_room("all", joined=[*staff(20), "eve", "fay"])
    assert identities(scene.plan().held) == [f"kick all {mxid('eve')}", f"kick all {mxid('fay')}"]


def test_recovery_lasts_until_nothing_is_held() -> None:
    scene = recovering(company(20).with_room("all", joined=[*staff(20), "eve"]))
    after = cycle(scene)
    assert after.recorded.recovery_since == scene.now
    again = cycle(after.later(days=2))
    assert again.recorded.recovery_since == scene.now
    over = cycle(again.approve(again.plan()))
    assert over.recorded.recovery_since is None
    assert over.members("all") == staff(20)


def test_a_first_start_on_an_empty_homeserver_is_no_recovery() -> None:
    scene = recovering(company(3)).without_room("all")
    assert scene.plan().problems == ()
    assert len(scene.plan().due) > 0


def test_interrupted_work_counts_as_done() -> None:
    scene = left(company(20, a_space("all", "")), staff(3))
    halfway = apply_plan(scene, scene.plan(), lambda action: action.target == mxid("e000"))
    # Two are pending still, one is done: with one more it is four.
    assert holds(left(halfway, staff(3))) == set()
    assert holds(left(halfway, staff(4))) == {"kick"}


# -- rooms and spaces that are given up -----------------------------------------------------------


def spaces(count: int) -> Scene:
    config = a_config(*(a_space(f"s{number:02}", "") for number in range(count)), default_rooms=[{"id": "r"}])
    return provisioned(config, a_directory(["ann"]))


def releases(scene: Scene, count: int) -> list[AnyAction]:
    keys = [key for key in scene.observed.rooms if "/" in key][:count]
    return [ReleaseRoom(room=key, space=key.partition("/")[0], room_id="!r", reason="gone") for key in keys]


def abandoned(scene: Scene, count: int) -> list[AnyAction]:
    keys = [key for key in scene.observed.rooms if "/" not in key][:count]
    return [AbandonSpace(room=key, space=key, room_id="!r", reason="gone") for key in keys]


@pytest.mark.parametrize(
    ("given_up", "words"), [(releases, "releases"), (abandoned, "abandoned spaces")], ids=["rooms", "spaces"]
)
def test_rooms_and_spaces_are_counted_as_such(given_up: Any, words: str) -> None:
    scene = spaces(40)
    counted = "rooms" if given_up is releases else "spaces"
    assert judge(scene.world, given_up(scene, 4)) == Verdict()
    verdict = judge(scene.world, given_up(scene, 5))
    assert len(verdict.held) == 5
    assert [trip.message for trip in verdict.trips] == [
        f"{words} in the organisation: 5 {counted} within an hour, the limit is 4"
    ]


def test_what_was_released_within_the_hour_counts() -> None:
    scene = spaces(40)
    done = tuple(Done(f"release_room x{n}", "releases", f"s{n}", f"x{n}", scene.now) for n in range(4))
    scene = replace(scene, recorded=replace(scene.recorded, done=done))
    [trip] = judge(scene.world, releases(scene, 1)).trips
    assert (trip.kind, trip.count, trip.limit) == ("releases", 5, 4)


def test_more_rooms_of_one_space_than_its_limit_are_held() -> None:
    config = a_config(a_space("all", ""), default_rooms=[{"id": f"r{number}"} for number in range(10)])
    scene = provisioned(config, a_directory(["ann"]))
    trips = judge(scene.world, releases(scene, 4)).trips
    assert [(trip.scope, trip.count, trip.limit) for trip in trips] == [("all", 4, 3), ("organisation", 4, 3)]


def test_a_space_waits_for_the_kicks_that_come_first() -> None:
    scene = company(40)
    kicks: list[AnyAction] = [
        Kick(room="all", space="all", room_id="!r", person=mxid(name), reason="x") for name in staff(10)
    ]
    abandon = AbandonSpace(
        room="all", space="all", room_id="!r", reason="x", after=tuple(kick.identity for kick in kicks)
    )
    verdict = judge(scene.world, [*kicks, abandon])
    assert abandon.identity in verdict.held
    assert "1 abandoned spaces held with the kicks that come first" in [
        trip.message for trip in verdict.trips
    ]
    assert judge(scene.world, [*kicks[:3], abandon]) == Verdict()


# -- a source that is still filling ------------------------------------------------------------------


def filled(scene: Scene, users: Iterable[str], *, filling: bool) -> Scene:
    directory = replace(a_directory(users, roster=scene.roster), filling=filling)
    return replace(scene, directory=directory)


def test_while_the_source_is_filling_nothing_destructive_is_done() -> None:
    accounts = ["ann", "bob", "cleo"]
    before = provisioned(a_config(a_space("all", "")), a_directory(["ann", "bob"]), accounts)
    scene = filled(before, ["ann", "cleo"], filling=True)
    plan = scene.plan()
    assert [(action.type, action.held) for action in plan.actions] == [
        (ActionType.KICK, True),
        (ActionType.INVITE, False),
    ]
    assert [trip.scope for trip in plan.trips] == ["filling"]
    assert "aim scim ready" in plan.trips[0].message
    assert any("aim scim ready" in problem.message for problem in plan.problems)


def test_what_waited_for_the_source_goes_once_it_is_ready() -> None:
    before = provisioned(a_config(a_space("all", "")), a_directory(["ann", "bob"]))
    after = cycle(filled(before, ["ann"], filling=True))
    assert after.members("all") == ["ann", "bob"]
    ready = cycle(filled(after, ["ann"], filling=False))
    assert ready.members("all") == ["ann"]


def test_who_was_never_entitled_waits_for_the_source_too() -> None:
    before = provisioned(a_config(a_space("all", "")), a_directory(["ann"]))
    scene = before.with_room("all", joined=["ann", "bob"])
    assert [action.held for action in filled(scene, ["ann"], filling=True).plan().actions] == [True]
