"""Two servers, each the master of its own people, in one space: what each does, and what neither does."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from aim.planner.guards import Kind
from aim.world.federation import EXPECTATIONS_TYPE
from aim.world.recorded import Approval
from tests.unit.federating import (
    BERLIN,
    CREATE,
    DALLAS,
    LEVELS,
    MEMBER,
    Homeserver,
    Party,
    Story,
    a_story,
    settled,
)

GENERAL = {"default_rooms": [{"id": "general"}]}


def names(*localparts: str, server: str = BERLIN) -> set[str]:
    return {f"@{name}:{server}" for name in localparts}


OURS = names("alice", "bob", "cyril", "groupsync", server=DALLAS)
THEIRS = names("dave", "eve", "francis", "groupsync")


def approve_all(party: Party) -> None:
    """A person lets everything go that the guards hold."""
    until = party.homeserver.network.clock.time.replace(year=2099)
    given = {action.identity: Approval(action.identity, "admin", until) for action in party.plan().held}
    party.recorder.recorded = replace(party.recorder.recorded, approvals=given)


def test_dallas_and_berlin() -> None:
    story = settled()
    assert story.members() == story.members(at=story.berlin) == OURS | THEIRS
    assert story.levels() == {
        f"@alice:{DALLAS}": 50,
        f"@dave:{BERLIN}": 50,
        f"@groupsync:{BERLIN}": 51,
    }
    assert story.expectations == {
        "version": 1,
        "agents": {
            f"@groupsync:{BERLIN}": {
                "groups": [
                    {"external_id": "", "power_level": 0},
                    {"external_id": "berlin-managers", "power_level": 50},
                ]
            }
        },
        "former": {},
    }
    assert story.network.is_one
    assert not story.dallas.problems()
    assert not story.berlin.problems()


def test_the_creating_side_asks_for_as_little_as_that_takes() -> None:
    story = a_story()
    assert story.dallas.did()[0] == "create_space shared"
    room_id = story.room_id
    assert story.dallas.calls == [
        ("create_room", "shared"),
        ("put_state", room_id, EXPECTATIONS_TYPE),
        ("invite_agent", room_id, story.berlin.bot),
    ]


def test_the_reasons_name_the_agent() -> None:
    story = a_story()
    story.dallas.cycle()
    [accept] = [action for action in story.berlin.plan().actions if action.type == "join"]
    assert (
        accept.reason
        == f"{story.dallas.bot} asks us in, which is among provisioner.federation.federates_with"
    )
    story.berlin.cycle()
    plan = story.berlin.plan()
    assert {action.reason for action in plan.actions if action.type == "invite"} == {
        f"in the directory, as {story.dallas.bot} expects"
    }
    assert plan.named(story.room_id) == f"Federated space (of {story.dallas.bot})"


@pytest.mark.parametrize(
    ("dallas", "berlin"),
    [("localhost:28448", "localhost:28449"), ("[::1]:8448", "[fd00::1]"), ("one.org", "one.org:443")],
)
def test_ports_and_addresses_in_names_of_servers(dallas: str, berlin: str) -> None:
    story = settled(dallas=dallas, berlin=berlin)
    assert story.members() == {
        *names("alice", "bob", "cyril", "groupsync", server=dallas),
        *names("dave", "eve", "francis", "groupsync", server=berlin),
    }
    assert story.levels()[f"@dave:{berlin}"] == 50


def test_old_localparts_in_upper_case_are_nobody_elses() -> None:
    def change(story: Story) -> None:
        story.berlin.people.append("DAVE")

    story = settled(change=change)
    assert {f"@dave:{BERLIN}", f"@DAVE:{BERLIN}"} < story.members()
    assert f"@DAVE:{BERLIN}" not in story.levels()


# -- whom a side touches -----------------------------------------------------------------------------------


def test_neither_side_touches_the_others_people() -> None:
    story = settled()
    room_id, dallas, berlin = story.room_id, story.dallas, story.berlin
    put = dallas.homeserver.put
    put(
        room_id,
        LEVELS,
        "",
        {
            **dallas.homeserver.content(room_id, LEVELS),
            "users": {**story.levels(), f"@eve:{BERLIN}": 40, f"@bob:{DALLAS}": 30},
        },
        dallas.bot,
    )
    story.network.deliver_all()
    # Each puts right what is its own.
    assert dallas.did() == [f"set_power_level shared @bob:{DALLAS} 0"]
    story.network.deliver_all()
    assert berlin.did() == [f"set_power_level {room_id} @eve:{BERLIN} 0"]
    story.network.deliver_all()
    assert f"@eve:{BERLIN}" not in story.levels()


def test_strangers_stay_unless_they_are_not_to() -> None:
    story = settled()
    network, room_id = story.network, story.room_id
    houston = Homeserver(network, "houston.example.com")
    stranger = "@hank:houston.example.com"
    story.dallas.homeserver.invite_over(room_id, stranger, story.dallas.bot)
    houston.join_over(room_id, stranger, DALLAS)
    network.deliver_all()
    assert story.dallas.did() == []
    assert story.berlin.did() == []
    for party in (story.berlin, story.dallas):
        party.provisioner["federation"]["kick_foreign"] = True
    assert story.berlin.did() == []
    assert story.dallas.did() == [f"kick shared {stranger}"]
    network.deliver_all()
    assert story.members() == OURS | THEIRS


def test_a_stranger_who_is_allowed_stays() -> None:
    story = settled()
    stranger = "@auditor:houston.example.com"
    Homeserver(story.network, "houston.example.com")
    story.dallas.homeserver.invite_over(story.room_id, stranger, story.dallas.bot)
    story.dallas.provisioner["federation"]["kick_foreign"] = True
    story.dallas.provisioner["allowed_users"] = ["@auditor:.*"]
    assert story.dallas.did() == []


# -- who is let in -----------------------------------------------------------------------------------------


def test_an_invite_by_somebody_who_is_not_listed_is_ignored() -> None:
    story = a_story()
    story.berlin.provisioner["federation"]["federates_with"] = ["@groupsync:houston.example.com"]
    story.settle()
    assert story.members("invite") == {story.berlin.bot}
    assert story.members() == OURS
    assert f"{story.berlin.bot} is asked in and has not come yet" in story.dallas.problems()
    # Once listed, they come.
    story.berlin.provisioner["federation"]["federates_with"] = [story.dallas.bot]
    story.settle()
    assert story.members() == OURS | THEIRS


def test_an_agent_that_is_not_listed_is_not_asked_in() -> None:
    story = a_story()
    story.dallas.provisioner["federation"]["federates_with"] = []
    story.settle()
    assert story.members("invite") == set()
    assert (
        f"{story.berlin.bot} is not asked in: it is not among provisioner.federation"
        in story.dallas.problems()
    )


def test_an_agent_of_our_own_homeserver_is_none() -> None:
    story = a_story()
    story.federated_groups({"externalId": "", "agent": f"@other:{DALLAS}"})
    story.settle()
    assert "is not asked in: it is of our own homeserver" in story.dallas.problems()


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"aim.managed": {"version": 1}},
        {"aim.managed": {"key": "shared"}},
        {"aim.managed": {"version": True, "key": "shared"}},
        {"aim.managed": "shared"},
    ],
)
def test_a_room_without_the_marker_is_not_come_into(content: dict[str, object]) -> None:
    story = a_story()
    dallas, berlin = story.dallas.homeserver, story.berlin
    room_id = dallas.create(story.dallas.bot, content, [])
    dallas.invite_over(room_id, berlin.bot, story.dallas.bot)
    berlin.cycle()
    assert room_id not in berlin.homeserver.rooms


def test_a_room_that_somebody_else_made_is_not_come_into() -> None:
    """A marker says nothing where another user than the one who invites made the room."""
    story = a_story()
    dallas, berlin = story.dallas.homeserver, story.berlin
    marker = {"aim.managed": {"version": 1, "instance": "aim", "key": "shared"}}
    room_id = dallas.create("@mallory:dallas.example.com", marker, [])
    dallas.put(room_id, MEMBER, story.dallas.bot, {"membership": "invite"}, "@mallory:dallas.example.com")
    dallas.put(room_id, MEMBER, story.dallas.bot, {"membership": "join"}, story.dallas.bot)
    dallas.invite_over(room_id, berlin.bot, story.dallas.bot)
    berlin.cycle()
    assert room_id not in berlin.homeserver.rooms


def test_what_turns_out_not_to_be_theirs_is_left_at_once() -> None:
    """The inviter's server may say of the room what it likes."""
    story = a_story()
    dallas, berlin = story.dallas.homeserver, story.berlin
    room_id = dallas.create("@mallory:dallas.example.com", {}, [])
    dallas.put(room_id, MEMBER, story.dallas.bot, {"membership": "invite"}, "@mallory:dallas.example.com")
    dallas.put(room_id, MEMBER, story.dallas.bot, {"membership": "join"}, story.dallas.bot)
    dallas.invite_over(room_id, berlin.bot, story.dallas.bot)
    lie = {
        "type": CREATE,
        "state_key": "",
        "sender": story.dallas.bot,
        "content": {"aim.managed": {"version": 1, "key": "shared"}},
    }
    berlin.homeserver.invites[room_id, berlin.bot]["invite_room_state"] = [lie]
    cycle = berlin.cycle()
    assert [outcome.message for outcome in cycle.failed] == ["it is not made by them"]
    assert berlin.homeserver.membership(room_id, berlin.bot) == "leave"
    assert [call for call in berlin.calls if call[0] == "invite"] == []


# -- what is expected --------------------------------------------------------------------------------------


def test_a_group_that_is_no_longer_expected_goes() -> None:
    story = settled()
    story.federated_groups(story.managers)
    story.settle()
    assert story.members() == OURS | names("dave", "groupsync")
    assert story.levels()[f"@dave:{BERLIN}"] == 50


def test_a_change_of_either_directory_is_followed() -> None:
    story = settled()
    story.berlin.people.append("greta")
    story.berlin.groups["berlin-managers"] = ["eve"]
    story.dallas.groups["dallas-managers"] = ["bob"]
    story.settle()
    assert f"@greta:{BERLIN}" in story.members()
    levels = story.levels()
    assert levels == {f"@bob:{DALLAS}": 50, f"@eve:{BERLIN}": 50, story.berlin.bot: 51}
    story.berlin.people.remove("greta")
    story.settle()
    assert f"@greta:{BERLIN}" not in story.members()


def test_what_exceeds_the_ceiling_is_capped_and_reported() -> None:
    story = a_story()
    story.federated_groups(story.everyone, {**story.managers, "powerLevel": 100})
    story.settle()
    assert story.levels()[f"@dave:{BERLIN}"] == 50
    said = f"{story.dallas.bot} expects level 100 for 'berlin-managers': they get 50"
    assert said in story.berlin.problems()
    assert (
        f"{story.berlin.bot} can give members of 'berlin-managers' level 50 at most"
        in story.dallas.problems()
    )


def test_our_own_ceiling_counts_if_it_is_lower() -> None:
    story = a_story()
    story.berlin.provisioner["federation"]["max_power_level"] = 20
    story.settle()
    assert story.levels()[f"@dave:{BERLIN}"] == 20


def test_a_bot_of_a_lower_level_gives_less() -> None:
    story = a_story()
    story.dallas.provisioner["federation"]["max_power_level"] = 30
    story.settle()
    assert story.levels()[story.berlin.bot] == 31
    assert story.levels()[f"@dave:{BERLIN}"] == 30


def test_a_ceiling_that_is_lowered_takes_levels_back() -> None:
    story = settled()
    story.dallas.provisioner["federation"]["max_power_level"] = 30
    story.settle()
    assert story.levels() == {f"@alice:{DALLAS}": 50, story.berlin.bot: 31, f"@dave:{BERLIN}": 30}


def test_an_unknown_group_is_told_to_our_own_admin_alone() -> None:
    story = settled()
    before = dict(story.dallas.homeserver.rooms[story.room_id])
    story.federated_groups({**story.everyone, "externalId": "berlin-manager"}, story.managers)
    story.settle()
    said = story.berlin.problems()
    assert f"{story.dallas.bot} expects members of 'berlin-manager'" in said
    assert "'berlin-managers' meant?" in said
    # Nobody is put out for what may be a slip of the pen, and nothing is told there.
    assert story.members() == OURS | THEIRS
    changed = {
        key for key, held in story.dallas.homeserver.rooms[story.room_id].items() if before.get(key) != held
    }
    assert changed == {(EXPECTATIONS_TYPE, story.dallas.bot)}


def test_expectations_that_are_emptied_are_written_again_and_lead_to_nothing() -> None:
    story = settled()
    for party in (story.dallas, story.berlin):
        state = party.homeserver.rooms[story.room_id]
        key = (EXPECTATIONS_TYPE, story.dallas.bot)
        state[key] = replace(state[key], content={})
    assert story.berlin.did() == []
    assert f"{story.dallas.bot} has not said, so that we understand it" in story.berlin.problems()
    assert story.dallas.did() == ["set_expectations shared"]
    story.settle()
    assert story.members() == OURS | THEIRS


@pytest.mark.parametrize(
    "content",
    [
        {"version": 2, "agents": {}},
        {"version": "1", "agents": {}},
        {"version": 1, "agents": []},
        {"version": 1, "agents": {"@groupsync:berlin.example.com": {"groups": 5}}},
        {"version": 1, "agents": {"@groupsync:berlin.example.com": {"groups": [{"external_id": 5}]}}},
        {"version": 1, "agents": {"@groupsync:berlin.example.com": {"groups": [{"power_level": 1.5}]}}},
        {"version": 1, "agents": {}, "former": []},
        {
            "version": 1,
            "agents": {
                "@groupsync:berlin.example.com": {
                    "groups": [{"external_id": f"g{number}"} for number in range(201)]
                }
            },
        },
    ],
    ids=lambda content: str(content)[:60],
)
def test_expectations_that_we_do_not_understand_lead_to_nothing(content: dict[str, object]) -> None:
    story = settled()
    story.dallas.homeserver.put(story.room_id, EXPECTATIONS_TYPE, story.dallas.bot, content, story.dallas.bot)
    story.network.deliver_all()
    assert story.berlin.did() == []
    assert story.dallas.bot in story.berlin.problems()


def test_expectations_of_anybody_else_count_for_nothing() -> None:
    story = settled()
    alice = f"@alice:{DALLAS}"
    content = {"version": 1, "agents": {}, "former": {}}
    story.dallas.homeserver.put(story.room_id, EXPECTATIONS_TYPE, alice, content, alice)
    story.network.deliver_all()
    assert story.berlin.did() == []


def test_a_newer_marker_means_hands_off() -> None:
    story = settled()
    room_id = story.room_id
    for party in (story.dallas, story.berlin):
        state = party.homeserver.rooms[room_id]
        create = state[CREATE, ""]
        marker = {**create.content["aim.managed"], "version": 2}
        state[CREATE, ""] = replace(create, content={**create.content, "aim.managed": marker})
    story.berlin.people.remove("eve")
    assert story.berlin.did() == []
    assert "a newer aim, and it is not touched" in story.berlin.problems()


# -- rooms in the space ------------------------------------------------------------------------------------


def test_default_rooms_are_made_by_one_and_looked_after_by_both() -> None:
    story = settled(change=lambda story: story.dallas.provisioner.update(GENERAL))
    room_id = story.dallas.room_of("shared/general")
    for party in (story.dallas, story.berlin):
        homeserver = party.homeserver
        joined = {
            user
            for (kind, user), held in homeserver.rooms[room_id].items()
            if kind == MEMBER and held.content["membership"] == "join"
        }
        assert joined == OURS | THEIRS
    assert story.dallas.homeserver.content(room_id, LEVELS)["users"] == story.levels()
    assert [call for call in story.berlin.calls if call[0] == "create_room"] == [("create_room", "own")]
    assert not story.berlin.problems()


def test_a_default_room_is_left_with_its_space() -> None:
    story = settled(change=lambda story: story.dallas.provisioner.update(GENERAL))
    room_id = story.dallas.room_of("shared/general")
    story.federated_groups()
    story.settle()
    assert story.members() == OURS
    joined = {
        user
        for (kind, user), held in story.dallas.homeserver.rooms[room_id].items()
        if kind == MEMBER and held.content["membership"] == "join"
    }
    assert joined == OURS


# -- going -------------------------------------------------------------------------------------------------


def test_an_agent_that_is_no_longer_configured_removes_its_people_and_leaves() -> None:
    story = settled()
    story.federated_groups()
    assert (
        f"{story.berlin.bot} is no longer configured: it is to remove its people" in story.dallas.problems()
    )
    assert story.dallas.did() == ["set_expectations shared"]
    since = int(story.network.clock.time.timestamp() * 1000)
    assert story.expectations["agents"] == {}
    assert story.expectations["former"] == {story.berlin.bot: {"since": since}}
    story.network.deliver_all()
    assert f"{story.dallas.bot} does not expect us there any more" in story.berlin.problems()
    assert story.berlin.did() == [
        f"set_power_level {story.room_id} @dave:{BERLIN} 0",
        f"kick {story.room_id} @dave:{BERLIN}",
        f"kick {story.room_id} @eve:{BERLIN}",
        f"kick {story.room_id} @francis:{BERLIN}",
        f"abandon_space {story.room_id}",
    ]
    story.network.deliver_all()
    assert story.members() == OURS
    story.settle()
    assert story.levels() == {f"@alice:{DALLAS}": 50}
    assert story.expectations["former"] == {}
    assert story.dallas.homeserver.content(story.room_id, LEVELS)["events"][LEVELS] == 100
    assert not story.dallas.problems()


def test_an_agent_that_does_not_answer_has_its_time() -> None:
    story = settled()
    story.federated_groups()
    assert story.dallas.did() == ["set_expectations shared"]
    assert story.dallas.did() == []
    story.pass_time(hours=23)
    assert story.dallas.did() == []
    # Beforehand the plan says what is to come.
    assert "whoever of its server is still in is removed by us" in story.dallas.problems()
    story.pass_time(hours=1)
    assert story.dallas.did() == [
        f"kick shared @dave:{BERLIN}",
        f"kick shared @eve:{BERLIN}",
        f"kick shared @francis:{BERLIN}",
        f"kick shared {story.berlin.bot}",
    ]
    assert story.members() == OURS


def test_removing_the_people_of_a_server_is_guarded() -> None:
    story = settled()
    story.berlin.people.append("greta")
    story.settle()
    story.federated_groups()
    story.dallas.did()
    story.pass_time(days=1)
    # The bot comes last, and not without them.
    assert story.dallas.did() == []
    assert {trip.kind for trip in story.dallas.plan().trips} == {Kind.KICKS}
    approve_all(story.dallas)
    assert story.dallas.did()[-1] == f"kick shared {story.berlin.bot}"
    assert story.members() == OURS


def test_without_grace_nobody_else_removes_them() -> None:
    story = settled()
    story.dallas.provisioner["federation"]["grace"] = "0s"
    story.federated_groups()
    assert story.dallas.did() == ["set_expectations shared"]
    story.pass_time(days=400)
    assert story.dallas.did() == []
    assert "grace is 0" in story.dallas.problems()


def test_an_agent_that_is_configured_again_comes_back() -> None:
    story = settled()
    story.federated_groups()
    story.settle()
    story.federated_groups(story.everyone, story.managers)
    story.settle()
    assert story.members() == OURS | THEIRS
    assert story.expectations["former"] == {}


def test_an_agent_that_is_configured_again_in_time_stays() -> None:
    story = settled()
    story.federated_groups()
    story.dallas.did()
    story.federated_groups(story.everyone, story.managers)
    assert story.dallas.did() == ["set_expectations shared"]
    assert story.expectations["former"] == {}
    story.settle()
    assert story.members() == OURS | THEIRS


def test_of_two_agents_of_one_server_only_one_goes() -> None:
    story = settled()
    berlin = story.berlin
    second = Party(berlin.homeserver, berlin.people, berlin.groups, bot_name="second")
    story.dallas.provisioner["federation"]["federates_with"].append(second.bot)
    story.federated_groups(story.everyone, {"externalId": "", "agent": second.bot})
    second.provisioner["federation"] = {"federates_with": [story.dallas.bot]}
    story.settle()
    second.cycle()
    story.network.deliver_all()
    assert second.bot in story.members()
    story.federated_groups(story.everyone)
    story.dallas.cycle()
    story.pass_time(days=2)
    assert story.dallas.did() == [f"kick shared {second.bot}"]
    assert story.members() == OURS | THEIRS


def test_a_peer_that_is_taken_off_the_list_is_left_with_all_our_people() -> None:
    story = settled()
    story.berlin.provisioner["federation"]["federates_with"] = []
    assert "no longer among provisioner.federation.federates_with" in story.berlin.problems()
    assert story.berlin.did()[-1] == f"abandon_space {story.room_id}"
    story.network.deliver_all()
    assert story.members() == OURS
    # They are asked again, and do not come.
    story.settle()
    assert story.members() == OURS


def test_leaving_is_guarded() -> None:
    story = settled()
    story.berlin.people += ["greta", "hanna"]
    story.settle()
    story.berlin.provisioner["federation"]["federates_with"] = []
    assert story.berlin.did() == []
    held = {action.type for action in story.berlin.plan().held}
    assert {"kick", "abandon_space"} <= held
    approve_all(story.berlin)
    assert story.berlin.did()[-1] == f"abandon_space {story.room_id}"
    assert story.members(at=story.berlin) <= OURS


def test_a_space_that_is_given_up_is_empty() -> None:
    story = settled()
    story.dallas.provisioner["gc"] = {"enabled": True}
    story.dallas.provisioner["guards"] = {
        kind: {scope: {"at_least": 100} for scope in ("per_space", "organisation")}
        for kind in ("kicks", "abandoned_spaces")
    }
    room_id = story.room_id
    story.dallas.spaces[:] = [{"id": "other", "name": "Other"}]
    for _ in range(4):
        story.dallas.cycle()
        story.network.deliver_all()
        story.berlin.cycle()
        story.network.deliver_all()
    state = story.dallas.homeserver.rooms[room_id]
    assert not [
        key for (kind, key), held in state.items() if kind == MEMBER and held.content["membership"] == "join"
    ]


# -- bad days ----------------------------------------------------------------------------------------------


def test_the_other_server_is_away() -> None:
    story = a_story()
    story.berlin.homeserver.is_away = True
    cycle = story.dallas.cycle()
    assert [outcome.action.identity for outcome in cycle.failed] == [
        f"invite_agent shared {story.berlin.bot}"
    ]
    # Whatever else there is was done before that.
    assert story.members("invite") == names("alice", "bob", "cyril", server=DALLAS)
    story.berlin.homeserver.is_away = False
    story.settle()
    assert story.members() == OURS | THEIRS


def test_the_other_server_is_away_for_an_hour() -> None:
    story = settled()
    story.berlin.homeserver.is_away = True
    story.dallas.people.append("dora")
    story.federated_groups(story.managers)
    story.dallas.cycle()
    story.network.accept_invites()
    story.berlin.people.append("greta")
    story.berlin.cycle()
    story.berlin.homeserver.is_away = False
    story.settle()
    assert story.network.is_one
    assert story.members() == OURS | names("dora", server=DALLAS) | names("dave", "groupsync")


def test_the_database_of_the_asked_side_is_lost() -> None:
    story = settled()
    fresh = Party(
        story.berlin.homeserver,
        story.berlin.people,
        story.berlin.groups,
        provisioner=story.berlin.provisioner,
    )
    fresh.people.remove("eve")
    # Nobody is removed by a database that knows nothing.
    assert [action.identity for action in fresh.plan().held] == [f"kick {story.room_id} @eve:{BERLIN}"]


def test_an_invite_alone_is_no_lost_database() -> None:
    story = a_story()
    story.dallas.cycle()
    assert "recovery" not in story.berlin.problems()


def interleaved(story: Story, chance: random.Random, steps: int) -> None:
    """Changes on both sides, cycles and deliveries, in whatever order."""

    def directory(party: Party, managers: str) -> None:
        party.groups[managers] = sorted(chance.sample(party.people, chance.randint(0, len(party.people))))

    def meddle(party: Party) -> None:
        """Somebody with the right to do so changes levels by hand, those of the other server's people too."""
        homeserver, room_id = party.homeserver, story.room_id
        users = dict(homeserver.content(room_id, LEVELS)["users"])
        users[chance.choice(sorted(names("dave", "eve", "francis")))] = chance.randint(1, 50)
        users[chance.choice(sorted(names("alice", "bob", "cyril", server=DALLAS)))] = chance.randint(1, 50)
        homeserver.put(
            room_id, LEVELS, "", {**homeserver.content(room_id, LEVELS), "users": users}, party.bot
        )

    def deliver() -> None:
        sender, receiver = chance.sample([DALLAS, BERLIN], 2)
        story.network.deliver(sender, receiver, chance.randint(0, 3))

    deeds: list[Callable[[], object]] = [
        lambda: directory(story.dallas, "dallas-managers"),
        lambda: directory(story.berlin, "berlin-managers"),
        lambda: meddle(story.dallas),
        lambda: meddle(story.berlin),
        story.dallas.cycle,
        story.berlin.cycle,
        story.dallas.cycle,
        story.berlin.cycle,
        deliver,
        deliver,
        deliver,
    ]
    for _ in range(steps):
        chance.choice(deeds)()


@pytest.mark.parametrize("seed", range(200))
def test_power_levels_from_both_sides_converge(seed: int) -> None:
    story = settled(change=_without_limits)
    interleaved(story, random.Random(seed), 30)
    story.settle(rounds=20)
    wanted = {f"@{name}:{DALLAS}": 50 for name in story.dallas.groups["dallas-managers"]}
    wanted |= {f"@{name}:{BERLIN}": 50 for name in story.berlin.groups["berlin-managers"]}
    assert story.levels() == story.levels(at=story.berlin) == {**wanted, story.berlin.bot: 51}
    assert story.network.is_one


def _without_limits(story: Story) -> None:
    limits = {scope: {"at_least": 1000} for scope in ("per_space", "organisation")}
    for party in (story.dallas, story.berlin):
        party.provisioner["guards"] = {"demotions": limits, "kicks": limits}
