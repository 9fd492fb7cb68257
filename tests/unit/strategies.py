"""Hypothesis strategies: arbitrary scenes, hostile ones included."""

from __future__ import annotations

import random as shuffling
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from aim.config import Config
from aim.desired.desire import desire
from aim.desired.levels import base_levels, has_privileged_creators
from aim.directory.model import Directory
from aim.directory.roster import People, Roster
from aim.planner.keys import Keys
from aim.planner.memory import properties_of
from aim.world.accounts import Account, KnownAccounts
from aim.world.recorded import Approval, Done, Queued, Recorded, RecordedRoom, Seen
from aim.world.rooms import Observed, PowerLevels, Room
from tests.unit.model import BOT, SERVER, localpart, mxid
from tests.unit.worlds import (
    NO_LIMITS,
    NOW,
    Scene,
    a_config,
    a_directory,
    a_queued,
    a_room,
    a_space,
    a_user,
    an_observed,
    room_id_of,
)


def examples(count: int) -> settings:
    """So many, the same ones every time."""
    return settings(
        derandomize=True,
        database=None,
        deadline=None,
        max_examples=count,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


PEOPLE = [f"p{number}" for number in range(7)]
STRANGERS = ["s0", "s1"]
GROUPS = ["g0", "g1", "g2"]
SPACES = ["a", "b", "c", "d"]
FOREIGN = "@far:other.example"
ADDRESSES = ["a@example.com", "b@example.com", "c@example.com"]
KEYS = [*SPACES, *(f"{space}/{room}" for space in SPACES for room in ("r", "q"))]

# Several people, as a rule: between empty sets nothing happens.
some_people = st.sets(st.sampled_from(PEOPLE), min_size=3) | st.sets(st.sampled_from(PEOPLE), max_size=2)
anybody = st.sampled_from([*PEOPLE, *STRANGERS])
levels = st.sampled_from([0, 0, 50, 100, -1])
some_addresses = st.sets(st.sampled_from(["A@example.com", *ADDRESSES[1:]]), max_size=2)
some_number = st.sets(st.sampled_from(PEOPLE), max_size=2)


@st.composite
def configs(draw: st.DrawFn, *, limits: bool, accounts: bool = False) -> Config:
    """Any tree of up to four spaces, up to two default rooms; without `limits` the guards never trip."""
    count = draw(st.integers(0, len(SPACES)))
    items: list[dict[str, Any]] = []
    roots: list[dict[str, Any]] = []
    for name in SPACES[:count]:
        groups = draw(
            st.lists(st.tuples(st.sampled_from([*GROUPS, "", "unknown"]), levels), max_size=3, unique=True)
        )
        item = a_space(name, *groups, subspaces=[])
        parent = draw(st.sampled_from([None, *items]))
        (roots if parent is None else parent["subspaces"]).append(item)
        items.append(item)
    rooms = draw(st.lists(default_rooms, max_size=2, unique_by=lambda room: str(room["id"])))
    return a_config(
        *roots,
        default_rooms=rooms,
        invite_to_public_rooms=draw(st.booleans()),
        invite_before_first_login=draw(st.booleans()),
        membership=draw(st.sampled_from(["invite", "invite", "join"])),
        enforce_names=draw(st.booleans()),
        allowed_users=draw(st.sampled_from([[], [f"@s0:{SERVER}"], ["@p[01]:.*"]])),
        user_provisioner=draw(user_provisioners) if accounts else None,
        **({} if limits else {"guards": NO_LIMITS}),
    )


user_provisioners = st.fixed_dictionaries(
    {},
    optional={
        "synced_attributes": st.sampled_from([["displayName"], ["emails"]]),
        "deprovisioning": st.fixed_dictionaries(
            {"enabled": st.sampled_from([True, True, False]), "include_admins": st.booleans()}
        ),
    },
).map(lambda given: {"deprovisioning": {"enabled": True}, **given})
default_rooms = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["r", "q"]),
        "properties": st.fixed_dictionaries(
            {},
            optional={
                "name": st.just("Room"),
                "topic": st.sampled_from(["", "Talk"]),
                "encrypted": st.booleans(),
                "history_visibility": st.just("joined"),
                "join_rule": st.sampled_from(["restricted", "public", "invite", "knock_restricted"]),
                "suggested": st.booleans(),
                "room_version": st.sampled_from(["11", "12"]),
            },
        ),
    }
)


@st.composite
def directories(draw: st.DrawFn, roster: Roster, *, accounts: bool = False) -> Directory:
    """Any people and groups; ids that belong to others now and then, people in doubt too."""
    contested = draw(st.sets(st.sampled_from(PEOPLE), max_size=1))
    names = sorted(draw(some_people) - contested)
    inactive = draw(st.sets(st.sampled_from(PEOPLE), max_size=2))
    own = [f"id-{name}" for name in PEOPLE]
    mixed = st.permutations(own)
    # Among people of whom it is in doubt who they are nobody is locked: with accounts there are fewer.
    ids = draw(st.sampled_from([own, own, own]) | mixed if accounts else mixed | st.just(own))
    users = [a_user(name, ids[PEOPLE.index(name)], active=name not in inactive) for name in names]
    if accounts:
        users = [
            replace(
                user,
                weak_id=draw(st.sampled_from([False, False, False, True])),
                display_name=draw(st.sampled_from([None, "Name", user.localpart])),
                emails=tuple(sorted(draw(some_addresses))),
            )
            for user in users
        ]
    unreadable = draw(st.sets(st.sampled_from(ids), max_size=1)) - {user.id for user in users}
    return a_directory(
        users,
        {group: draw(some_people) for group in GROUPS if draw(st.sampled_from([True, True, True, False]))},
        roster=roster,
        contested=contested,
        unresolved=unreadable,
    )


def restricted_to(space: str) -> dict[str, object]:
    """The join rule that lets the members of a space in."""
    return {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": room_id_of(space)}]}


@st.composite
def rooms(draw: st.DrawFn, roster: Roster, key: str) -> Room:
    """A room in any state."""
    memberships = draw(
        st.dictionaries(
            anybody, st.sampled_from(["join", "join", "invite", "ban", "knock", "left", "left-long-ago"])
        )
    )

    def those(*kinds: str) -> list[str]:
        return sorted(name for name, kind in memberships.items() if kind in kinds)

    recent, long_ago = (int((NOW - timedelta(days=days)).timestamp() * 1000) for days in (0.5, 2))
    left = {**dict.fromkeys(those("left"), recent), **dict.fromkeys(those("left-long-ago"), long_ago)}
    version = draw(st.sampled_from(["11", "12"]))
    # A default room is always one that we made.
    makers = [] if "/" in key else [mxid(name) for name in [*PEOPLE[:3], *STRANGERS]]
    creator = draw(st.sampled_from([BOT, BOT, *makers]))
    named = draw(st.dictionaries(anybody, levels, max_size=3))
    if has_privileged_creators(version) and creator != BOT:
        named.pop(localpart(creator), None)
    complete = dict(base_levels(is_space="/" not in key, room_version=version))
    tampered = {**complete, "users_default": 50, "events": {"m.room.power_levels": 0}}
    states: list[dict[str, dict[str, object]]] = [
        {},
        {"m.room.name": {"name": "Renamed"}},
        {"m.room.encryption": {}},
        {"m.room.join_rules": {"join_rule": "public"}},
        {"m.room.join_rules": restricted_to(draw(st.sampled_from([key, *SPACES])))},
    ]
    return a_room(
        roster,
        key,
        those("join"),
        invited=those("invite"),
        banned=those("ban"),
        knocking=those("knock"),
        left=left,
        foreign=draw(st.sampled_from([(), (FOREIGN,)])),
        levels=named,
        foreign_levels=draw(st.sampled_from([{}, {FOREIGN: 100}])),
        creator=creator,
        taken_over=creator != BOT,
        bot_level=draw(st.sampled_from([100, 100, 100, 50])),
        base=draw(st.sampled_from([complete, complete, tampered, {}])),
        children=draw(st.dictionaries(st.sampled_from([*KEYS, "elsewhere"]), st.booleans(), max_size=3)),
        version=version,
        state=draw(st.sampled_from(states)),
    )


@st.composite
def scenes(draw: st.DrawFn, *, limits: bool = False, accounts: bool = False) -> Scene:
    """Any scene: a first start, an old installation, a lost database, rooms tampered with; with `accounts`
    that follow the directory."""
    roster = Roster()
    config = draw(configs(limits=limits, accounts=accounts))
    directory = draw(directories(roster, accounts=accounts))
    reachable = draw(some_people) | draw(st.sets(st.sampled_from(STRANGERS)))
    wanted = list(desire(config, directory, an_observed(roster, ()), Recorded()).rooms)
    keys = draw(st.sets(st.sampled_from([*wanted, *wanted, "old", "a/q", "d"]), max_size=6).map(sorted))
    observed = an_observed(
        roster,
        reachable,
        *(draw(rooms(roster, key)) for key in keys),
        newer=draw(st.sampled_from([{}, {}, {"d": "!newer:example.com"}] if "d" not in keys else [{}])),
    )
    remembered = recordeds(config, directory, observed)
    recorded = draw(remembered if accounts else st.just(Recorded()) | remembered)
    if accounts:
        observed = replace(observed, known_accounts=draw(known_accounts()))
        recorded = draw(with_queues(recorded))
    age = draw(st.sampled_from([timedelta()] * 3 + [HOUR, timedelta(days=2)])) if accounts else timedelta()
    return Scene(config, directory, observed, recorded, directory_age=age)


@st.composite
def known_accounts(draw: st.DrawFn) -> KnownAccounts:
    """Any accounts; no address belongs to two of them."""
    names = sorted({*PEOPLE, *draw(st.sets(st.sampled_from(STRANGERS)))} - draw(some_number))
    owners = draw(st.dictionaries(st.sampled_from(ADDRESSES), st.sampled_from(names))) if names else {}
    accounts = [
        Account(
            name,
            draw(st.sampled_from([None, "Name", "Other"])),
            tuple(sorted(address for address, owner in owners.items() if owner == name))
            if draw(st.sampled_from([True, True, False]))
            else None,
            locked=draw(st.booleans()),
            deactivated=draw(st.sampled_from([False] * 5 + [True])),
            admin=draw(st.sampled_from([False, False, False, True])),
        )
        for name in names
    ]
    refused = draw(st.sampled_from(["", "", "", "", "no admin"]))
    return KnownAccounts({account.localpart: account for account in accounts}, owners, refused)


@st.composite
def with_queues(draw: st.DrawFn, recorded: Recorded) -> Recorded:
    """With people on the queue, weak ids among those seen, and any reading of the clock."""
    days = st.sampled_from([-20, -1, 0, 20])
    weak = draw(some_number)
    known = {
        f"id-{name}": Seen(f"id-{name}", name, name in weak, NOW - timedelta(days=9), None)
        for name in sorted(set(PEOPLE) - draw(some_number))
    }
    queue: dict[str, Queued] = {}
    for seen in known.values():
        if draw(st.booleans()):
            queue[seen.id] = a_queued(
                seen.localpart,
                seen.id,
                days_left=draw(days),
                ours=draw(st.booleans()),
                held_by=draw(nobody_or_root),
                restored_by=draw(nobody_or_root),
                erase_by=draw(nobody_or_root),
                found_due_at=draw(st.sampled_from([None, None, NOW - HOUR, NOW, NOW + HOUR])),
            )
    return replace(
        recorded,
        source=draw(st.sampled_from(["ldif", "ldif", "ldif", "ldap"])),
        seen=known,
        queue=queue,
        clock=draw(st.sampled_from([NOW, NOW, NOW - HOUR, NOW - 3 * HOUR, NOW + HOUR, None])),
        database_ahead=draw(st.sampled_from([timedelta()] * 4 + [HOUR])),
    )


HOUR = timedelta(hours=1)
nobody_or_root = st.sampled_from([None] * 7 + ["root"])


@st.composite
def recordeds(draw: st.DrawFn, config: Config, directory: Directory, observed: Observed) -> Recorded:
    """Anything that may be remembered with this directory and these rooms."""
    roster = directory.roster
    desired = desire(config, directory, observed, Recorded()).rooms
    known: dict[str, RecordedRoom] = {}
    for key in draw(st.sets(st.sampled_from(KEYS))):
        properties: Mapping[str, object] | None = None
        if key in desired and draw(st.booleans()):
            properties = properties_of(desired[key])
            if draw(st.booleans()):
                properties = {**properties, "suggested": False, "m.room.name": {"name": "As it was"}}
        known[key] = RecordedRoom(key, room_id_of(key), properties)
    entitled = {key: draw(some_people) for key in sorted(desired) if draw(st.booleans())}
    wishes = st.sampled_from([NOW - timedelta(days=1), NOW - timedelta(days=1), NOW - timedelta(hours=1)])
    lapsed = {key: draw(some_number) & people for key, people in entitled.items()}
    regained = {
        key: {roster.number(name): draw(wishes) for name in sorted(draw(some_number) & people - lapsed[key])}
        for key, people in entitled.items()
    }
    caused = {room.room_id: roster.people(sorted(draw(some_number))) for room in observed.rooms.values()}
    return Recorded(
        fresh=False,
        recovery_since=draw(st.sampled_from([None, None, NOW - timedelta(days=1)])),
        source="ldif",
        rooms=known,
        seen={
            f"id-{name}": Seen(f"id-{name}", name, False, NOW - timedelta(days=9), None)
            for name in draw(some_people)
        },
        entitled={key: roster.people(people) for key, people in entitled.items()},
        lapsed={key: roster.people(people) for key, people in lapsed.items()},
        regained=regained,
        caused=caused,
    )


@st.composite
def pasts(draw: st.DrawFn, scene: Scene) -> Scene:
    """The scene with a past: some of what is pending is held or approved, some was done of late."""
    recorded = scene.recorded
    pending = [action.identity for action in scene.plan().actions] or ["kick a @nobody:example.com"]
    some = st.sets(st.sampled_from(pending), max_size=4)
    until = NOW + timedelta(hours=1)
    done = st.builds(
        Done,
        identity=st.just("kick a @p0:example.com"),
        kind=st.sampled_from(["kicks", "demotions", "releases"]),
        space=st.sampled_from(SPACES),
        person=anybody,
        at=st.integers(0, 90).map(lambda minutes: NOW - timedelta(minutes=minutes)),
    )
    return replace(
        scene,
        recorded=replace(
            recorded,
            fresh=False,
            held=frozenset(draw(some)),
            approvals={identity: Approval(identity, "admin", until) for identity in draw(some)},
            done=tuple(draw(st.lists(done, max_size=6))),
        ),
    )


some_keys = st.builds(
    Keys,
    rooms=st.frozensets(st.sampled_from([*KEYS, "everyone"]) | anybody.map(mxid), max_size=3),
    people=st.frozensets(anybody.map(mxid), max_size=3),
)


def renumbered(scene: Scene, random: shuffling.Random) -> Scene:
    """The same scene with another numbering of people, and every mapping and list in another order."""
    old, new = scene.roster, Roster()
    names = [old.localpart(number) for number in range(len(old))]
    for name in random.sample(names, len(names)):
        new.number(name)

    def people(numbers: People) -> People:
        return new.people(old.localparts(numbers))

    def mixed(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
        items = list(mapping.items())
        return dict(random.sample(items, len(items)))

    def by_number(mapping: Mapping[int, Any]) -> dict[int, Any]:
        return mixed({new.number(old.localpart(number)): value for number, value in mapping.items()})

    def room(before: Room) -> Room:
        sets: dict[str, Any] = {
            name: people(getattr(before, name)) for name in ("joined", "invited", "knocking", "banned")
        }
        power_levels = PowerLevels(
            by_number(before.power_levels.people),
            mixed(before.power_levels.foreign),
            mixed(before.power_levels.base),
        )
        return replace(
            before,
            **sets,
            left=by_number(before.left),
            power_levels=power_levels,
            children=mixed(before.children),
            state=mixed(before.state),
        )

    directory, observed, recorded = scene.directory, scene.observed, scene.recorded
    known = observed.known_accounts
    if known is not None:
        known = replace(known, accounts=mixed(known.accounts), owners=mixed(known.owners))
    return replace(
        scene,
        directory=replace(
            directory,
            roster=new,
            users=tuple(random.sample(directory.users, len(directory.users))),
            groups=tuple(replace(group, members=people(group.members)) for group in directory.groups),
            everyone=people(directory.everyone),
            contested=people(directory.contested),
            keys=mixed(directory.keys),
        ),
        observed=replace(
            observed,
            rooms=mixed({key: room(before) for key, before in observed.rooms.items()}),
            accounts=people(observed.accounts),
            known_accounts=known,
        ),
        recorded=replace(
            recorded,
            rooms=mixed(recorded.rooms),
            seen=mixed(recorded.seen),
            queue=mixed(recorded.queue),
            entitled=mixed({key: people(known) for key, known in recorded.entitled.items()}),
            lapsed=mixed({key: people(known) for key, known in recorded.lapsed.items()}),
            regained=mixed({key: by_number(known) for key, known in recorded.regained.items()}),
            caused=mixed({room_id: people(known) for room_id, known in recorded.caused.items()}),
            done=tuple(random.sample(recorded.done, len(recorded.done))),
            approvals=mixed(recorded.approvals),
        ),
    )
