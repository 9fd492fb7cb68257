"""Worlds for the tests of the pure core: builders and a pure simulator. `strategies` makes arbitrary ones.

A `Scene` is everything a world is made of, before `desire`: configuration, directory, observed, recorded,
time. `apply_plan` carries the due actions of a plan out on a `model` homeserver and remembers what a cycle
would.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aim.config import Config
from aim.desired.desire import desire
from aim.desired.levels import base_levels, has_privileged_creators
from aim.desired.rooms import Desired
from aim.directory.model import Directory, Group, GroupKind, Problem, User, same
from aim.directory.roster import NOBODY, People, Roster
from aim.planner.actions import (
    AbandonSpace,
    AccountAction,
    AddChild,
    AnyAction,
    CreateRoom,
    CreateSpace,
    EraseAccount,
    Invite,
    InviteAgent,
    Join,
    Kick,
    LockAccount,
    PersonAction,
    RegisterAccount,
    ReleaseRoom,
    RemoveChild,
    SetDisplayName,
    SetEmails,
    SetExpectations,
    SetPowerLevel,
    SetRoomState,
    TakeControl,
    UnlockAccount,
)
from aim.planner.guards import counted_as, counted_in, is_counted, kind_of
from aim.planner.keys import Keys
from aim.planner.memory import Memory, applied, properties_of, remember
from aim.planner.plan import Plan, make_plan
from aim.planner.world import World
from aim.ports import NewRoom
from aim.provisioner.state import marker_content
from aim.reconciler import limits_of
from aim.world.accounts import Account, KnownAccounts
from aim.world.recorded import Approval, Done, Queued, Recorded, RecordedRoom, Seen
from aim.world.rooms import MARKER_TYPE, Child, Marker, Observed, PowerLevels, Room
from tests.unit.model import BOT, CHILD, INSTANCE, LEVELS, PARENT, SERVER, ModelHomeserver, localpart

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
NO_LIMITS = {
    kind: {"per_space": {"at_least": 10_000}, "organisation": {"at_least": 10_000}}
    for kind in ("kicks", "demotions", "locks", "erasures", "releases", "abandoned_spaces")
}


# -- builders -------------------------------------------------------------------------------------


def a_space(space: str, *groups: str | tuple[str, int], **more: Any) -> dict[str, Any]:
    """One item of `spaces`: a group is its external id, or that and a power level; `more` as in the file."""
    return {
        "id": space,
        "name": space.title(),
        "groups": [
            {"externalId": group}
            if isinstance(group, str)
            else {"externalId": group[0], "powerLevel": group[1]}
            for group in groups
        ],
        **more,
    }


def a_config(*spaces: Mapping[str, Any], **provisioner: Any) -> Config:
    """A configuration with these spaces (none: the key is left out) and this `provisioner` section.

    Among its keys `user_provisioner` is the section of that name (None: the key is left out), and
    `register_users` that of a SCIM source (None: the source is another one).
    """
    given = provisioner.pop("user_provisioner", None)
    registers = provisioner.pop("register_users", None)
    scim = {"type": "scim", "client": {"id": "idp", "token": "t"}, "register_users": registers}
    accounts = {} if given is None else {"user_provisioner": given}
    return Config.model_validate(
        {
            "homeserver": {"url": "http://localhost:8008", "server_name": SERVER},
            "appservice": {"as_token": "as", "hs_token": "hs"},
            "source": {"type": "ldif", "path": "directory.ldif"} if registers is None else scim,
            "provisioner": provisioner,
            **accounts,
            **({"spaces": list(spaces)} if spaces else {}),
        }
    )


def a_user(
    name: str, id_: str | None = None, *, active: bool = True, weak_id: bool = False, **more: Any
) -> User:
    return User(id_ or f"id-{name}", name, name, active=active, weak_id=weak_id, **more)


def a_seen(name: str, id_: str | None = None, *, weak_id: bool = False, gone: datetime | None = None) -> Seen:
    """Somebody who was in the directory nine days ago."""
    return Seen(id_ or f"id-{name}", name, weak_id, NOW - timedelta(days=9), gone)


def a_queued(name: str, id_: str | None = None, *, days_left: float = 20, **more: Any) -> Queued:
    """Somebody who was put on the queue ten days ago."""
    return Queued(
        user_id=id_ or f"id-{name}",
        localpart=name,
        queued_at=NOW - timedelta(days=10),
        due_at=NOW + timedelta(days=days_left),
        reason="no longer in the directory",
        **more,
    )


def a_directory(
    users: Iterable[str | User],
    groups: Mapping[str, Iterable[str]] | None = None,
    *,
    roster: Roster | None = None,
    contested: Iterable[str] = (),
    unresolved: Iterable[str] = (),
    problems: tuple[Problem, ...] = (),
    shared_names: Mapping[str, Collection[str]] | None = None,
    name: str = "Example",
) -> Directory:
    """A directory of localparts (whose id is `id-<localpart>`) or users, and of groups: id → localparts.

    `shared_names` maps a further name to the ids of the groups that share it.
    """
    roster = roster if roster is not None else Roster()
    people = [user if isinstance(user, User) else a_user(user) for user in users]
    active = {user.localpart for user in people if user.active}
    members = {key: sorted(active & set(inside)) for key, inside in sorted((groups or {}).items())}
    positions: dict[str, tuple[int, ...]] = {key: (position,) for position, key in enumerate(members)}
    for shared, ids in (shared_names or {}).items():
        positions[shared] = tuple(positions[key][0] for key in sorted(ids))
    return Directory(
        source="ldif",
        name=name,
        roster=roster,
        users=tuple(sorted(people, key=lambda user: user.id)),
        groups=tuple(
            Group(key, GroupKind.GROUP, key, roster.people(inside)) for key, inside in members.items()
        ),
        everyone=roster.people(sorted(active)),
        problems=problems,
        contested=roster.people(contested),
        unresolved=frozenset(unresolved),
        keys=positions,
        key_of=same,
    )


def a_room(
    roster: Roster,
    key: str,
    joined: Iterable[str] = (),
    *,
    invited: Iterable[str] = (),
    knocking: Iterable[str] = (),
    banned: Iterable[str] = (),
    left: Mapping[str, int] | None = None,
    foreign: Iterable[str] = (),
    levels: Mapping[str, int] | None = None,
    foreign_levels: Mapping[str, int] | None = None,
    creator: str = BOT,
    taken_over: bool = False,
    bot_level: int = 100,
    base: Mapping[str, object] | None = None,
    children: Mapping[str, bool] | Iterable[str] = (),
    version: str = "12",
    state: Mapping[str, Mapping[str, object]] | None = None,
    room_id: str | None = None,
) -> Room:
    """An observed room. Its id is `!<key>:example.com`; a key with a slash is a default room, else a space.

    `children` are keys, or key → suggested; `levels` go by localpart; `base` None: complete and untouched.
    """
    is_space = "/" not in key
    above_all = creator == BOT and has_privileged_creators(version)
    bots = {} if above_all else {BOT: bot_level}
    suggested = dict(children) if isinstance(children, Mapping) else dict.fromkeys(children, False)
    return Room(
        room_id=room_id or room_id_of(key),
        marker=Marker(1, INSTANCE, key, *((creator, 100) if taken_over else ())),
        version=version,
        created_ts=10**12,
        creators=frozenset({creator}),
        is_space=is_space,
        joined=roster.people(joined),
        invited=roster.people(invited),
        knocking=roster.people(knocking),
        banned=roster.people(banned),
        left={roster.number(name): when for name, when in (left or {}).items()},
        foreign=frozenset(foreign),
        power_levels=PowerLevels(
            people={roster.number(name): level for name, level in (levels or {}).items()},
            foreign={**bots, **(foreign_levels or {})},
            base=base if base is not None else base_levels(is_space=is_space, room_version=version),
        ),
        children={room_id_of(child): Child(room_id_of(child), flag) for child, flag in suggested.items()},
        state=state if state is not None else {"m.room.name": {"name": key.title()}},
    )


def a_room_of_people(
    roster: Roster,
    room_id: str,
    joined: Iterable[str] = (),
    *,
    rule: str | None = "public",
    allow: Iterable[str] = (),
    parents: Iterable[str] = (),
    levels: Mapping[str, int] | None = None,
    creator: str = "",
    version: str = "11",
    bot: str | None = None,
    **more: Any,
) -> Room:
    """A room without our marker, made by the first of `joined`, who has level 100 up to version 11.

    `allow` and `parents` are keys of spaces; `rule` None: it has no join rules.
    """
    members = list(joined)
    creator = creator or f"@{members[0]}:{SERVER}"
    if levels is None and not has_privileged_creators(version):
        levels = {localpart(creator): 100} if creator.endswith(f":{SERVER}") else {}
    allowed = [{"type": "m.room_membership", "room_id": room_id_of(space)} for space in allow]
    rules = {"join_rule": rule, "allow": allowed} if allowed else {"join_rule": rule}
    made = a_room(
        roster,
        "x/y",
        members,
        levels=levels,
        base={"invite": 0},
        creator=creator,
        version=version,
        room_id=room_id,
        state={"m.room.join_rules": rules} if rule else {},
    )
    foreign = {mxid: level for mxid, level in made.power_levels.foreign.items() if bot or mxid != BOT}
    return replace(
        made,
        marker=None,
        bot=bot,
        parents=frozenset(map(room_id_of, parents)),
        power_levels=replace(made.power_levels, foreign=foreign),
        **more,
    )


def with_child(space: Room, room_id: str, sender: str = "") -> Room:
    """The space, into which somebody put that room."""
    return replace(space, children={**space.children, room_id: Child(room_id, sender=sender)})


def room_id_of(key: str) -> str:
    return f"!{key}:{SERVER}"


def an_observed(
    roster: Roster,
    accounts: Iterable[str],
    *rooms: Room,
    duplicates: Mapping[str, tuple[str, ...]] | None = None,
    newer: Mapping[str, str] | None = None,
    unmanaged: Iterable[Room] = (),
    unseen: Mapping[str, str] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Observed:
    return Observed(
        rooms={room.key: room for room in rooms},
        accounts=roster.people(accounts),
        duplicates=duplicates or {},
        newer=newer or {},
        server_name=SERVER,
        bot=BOT,
        default_room_version="12",
        unmanaged={room.room_id: room for room in unmanaged},
        unseen=unseen or {},
        aliases=aliases or {},
    )


# -- scenes ---------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Scene:
    """What a world is made of."""

    config: Config
    directory: Directory
    observed: Observed
    recorded: Recorded = field(default_factory=Recorded)
    now: datetime = NOW
    directory_age: timedelta = timedelta()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """For hypothesis, which would otherwise print every default of the configuration."""
        printer.text(repr(self))

    def __repr__(self) -> str:
        given = self.config.model_dump(
            include={"spaces", "provisioner", "user_provisioner"}, exclude_defaults=True
        )
        given.get("provisioner", {}).pop("guards", None)
        people = {group.id: self.roster.localparts(group.members) for group in self.directory.groups}
        return (
            f"Scene({given}\n numbers={self.roster.localparts(range(len(self.roster)))}"
            f"\n users={[(user.id, user.localpart, user.active) for user in self.directory.users]}"
            f"\n groups={people}\n observed={self.observed}\n recorded={self.recorded}\n now={self.now})"
        )

    @property
    def roster(self) -> Roster:
        return self.directory.roster

    @property
    def desired(self) -> Desired:
        return desire(self.config, self.directory, self.observed, self.recorded)

    @property
    def world(self) -> World:
        return World(
            desired=self.desired,
            observed=self.observed,
            recorded=self.recorded,
            now=self.now,
            directory_at=self.now - self.directory_age,
            allowed_users=self.config.provisioner.allowed_users,
            limits=limits_of(self.config),
            joins=self.config.provisioner.membership == "join",
        )

    def plan(self, keys: Keys | None = None) -> Plan:
        return make_plan(self.world, keys)

    def later(self, **time: float) -> Scene:
        return replace(self, now=self.now + timedelta(**time))

    def with_room(self, key: str, **changes: Any) -> Scene:
        """The observed room changed: `joined`, `levels` and so on by localpart, as a_room takes them."""
        room = self.observed.rooms[key]
        for name in ("joined", "invited", "knocking", "banned"):
            if name in changes:
                changes[name] = self.roster.people(changes[name])
        if "left" in changes:
            changes["left"] = {self.roster.number(name): when for name, when in changes["left"].items()}
        if "levels" in changes:
            people = {self.roster.number(name): level for name, level in changes.pop("levels").items()}
            changes["power_levels"] = replace(room.power_levels, people=people)
        rooms = {**self.observed.rooms, key: replace(room, **changes)}
        return replace(self, observed=replace(self.observed, rooms=rooms))

    def without_room(self, key: str) -> Scene:
        """The bot does not see that room any more."""
        rooms = {name: room for name, room in self.observed.rooms.items() if name != key}
        return replace(self, observed=replace(self.observed, rooms=rooms))

    def members(self, key: str) -> list[str]:
        """Localparts of who is in or invited."""
        room = self.observed.rooms[key]
        return self.roster.localparts(room.joined | room.invited)

    def levels(self, key: str) -> dict[str, int]:
        """Localpart → level, of who is named in the power levels."""
        people = self.observed.rooms[key].power_levels.people
        return {self.roster.localpart(person): level for person, level in sorted(people.items())}

    def with_accounts(self, *accounts: Account | str, **known: Any) -> Scene:
        """These accounts, and no others, are known; `known` are further fields of `KnownAccounts`."""
        made = [account if isinstance(account, Account) else Account(account) for account in accounts]
        found = KnownAccounts({account.localpart: account for account in made}, **known)
        return replace(self, observed=replace(self.observed, known_accounts=found))

    def with_account(self, name: str, **changes: Any) -> Scene:
        """One known account changed."""
        known = self.observed.known_accounts
        assert known is not None
        changed = {**known.accounts, name: replace(known.accounts[name], **changes)}
        return replace(self, observed=replace(self.observed, known_accounts=replace(known, accounts=changed)))

    def with_seen(self, *seen: Seen | str) -> Scene:
        """These people, and no others, were seen before."""
        made = [one if isinstance(one, Seen) else a_seen(one) for one in seen]
        return self.recording(seen={one.id: one for one in made})

    def with_queue(self, *queued: Queued) -> Scene:
        return self.recording(queue={one.user_id: one for one in queued})

    def recording(self, **changes: Any) -> Scene:
        """With these things recorded, in a database that is not fresh."""
        return replace(self, recorded=replace(self.recorded, **{"fresh": False, **changes}))

    def approve(self, plan: Plan, **lasting: float) -> Scene:
        """Somebody approves what the plan holds, for a day or for `lasting`."""
        until = self.now + timedelta(**(lasting or {"hours": 24}))
        approvals = {action.identity: Approval(action.identity, "admin", until) for action in plan.held}
        return replace(
            self, recorded=replace(self.recorded, approvals={**self.recorded.approvals, **approvals})
        )


def a_scene(config: Config, directory: Directory, accounts: Iterable[str] | None = None) -> Scene:
    """A first start: nothing observed but accounts (all users, unless given), nothing recorded."""
    named = [user.localpart for user in directory.users] if accounts is None else accounts
    return Scene(config, directory, an_observed(directory.roster, named))


def provisioned(config: Config, directory: Directory, accounts: Iterable[str] | None = None) -> Scene:
    """The scene after a first cycle, when everybody has accepted their invites."""
    return accept_invites(cycle(a_scene(config, directory, accounts)))


def identities(actions: Iterable[AnyAction]) -> list[str]:
    return [action.identity for action in actions]


# -- the simulator --------------------------------------------------------------------------------


def cycle(scene: Scene) -> Scene:
    """One cycle: the whole plan, carried out."""
    return apply_plan(scene, scene.plan())


def apply_plan(scene: Scene, plan: Plan, only: Callable[[AnyAction], bool] = lambda _: True) -> Scene:
    """The scene after a cycle with this plan, whose due actions succeed as far as `only` says."""
    memory = remember(scene.world, plan)
    if not plan.due and not memory:
        return scene
    desired = scene.desired
    homeserver = ModelHomeserver.from_observed(scene.observed, scene.roster)
    ids = {key: room.room_id for key, room in scene.observed.rooms.items()}
    recorded = recall(scene.recorded, memory, scene.roster, scene.now)
    due = [action for action in plan.due if only(action)]
    on_accounts = [action for action in due if isinstance(action, AccountAction)]
    done = {action.identity for action in due}
    recorded = replace(
        recorded,
        fresh=False,
        done=(*recorded.done, *_counted(due, scene.now)),
        approvals={key: given for key, given in recorded.approvals.items() if key not in done},
    )
    registered = [localpart(action.person) for action in due if isinstance(action, RegisterAccount)]
    assert homeserver.accounts.isdisjoint(registered), "nobody is registered twice"
    homeserver.accounts.update(registered)
    taken = {action.room: str(action.room_id) for action in due if isinstance(action, TakeControl)}
    ids |= taken
    made = _create_rooms(due, ids, homeserver)
    # As the executor does it: who lowers their own level does so when the guarding levels are right again.
    for action in sorted(due, key=lambda action: getattr(action, "as_themselves", False)):
        if not isinstance(action, CreateRoom | AccountAction):
            _carry_out(action, ids, homeserver, scene.now)
    recorded = replace(recorded, caused=_with_caused(recorded.caused, due, ids, scene.roster))
    rooms = {
        **recorded.rooms,
        **{key: RecordedRoom(key, room_id, None) for key, room_id in taken.items()},
        **{key: RecordedRoom(key, ids[key], properties_of(desired.rooms[key])) for key in made},
        **{room.key: room for room in applied(scene.world, plan, memory, due)},
    }
    recorded = replace(recorded, rooms=rooms)
    known = {key: room.room_id for key, room in recorded.rooms.items()}
    after = homeserver.observe(scene.roster, known)
    accounts = scene.observed.known_accounts
    if accounts is not None:
        accounts = replace(accounts, accounts={**accounts.accounts, **_new_accounts(accounts, registered)})
    for action in sorted(on_accounts, key=lambda action: len(action.after)):
        if isinstance(action, RegisterAccount):
            continue
        assert accounts is not None, f"{action.identity}: nothing is known of accounts"
        recorded, accounts = _carry_out_on_account(action, recorded, accounts, scene.now)
    return replace(scene, recorded=recorded, observed=replace(after, known_accounts=accounts))


def _new_accounts(known: KnownAccounts, registered: Iterable[str]) -> dict[str, Account]:
    """Accounts that are made, and nothing more: an account that is known stays as it is."""
    made = {name: Account(name) for name in registered}
    assert not any(known.accounts[name].deactivated for name in made.keys() & known.accounts.keys())
    return {**made, **known.accounts}


def _carry_out_on_account(
    action: SetDisplayName | SetEmails | LockAccount | UnlockAccount | EraseAccount,
    recorded: Recorded,
    known: KnownAccounts,
    now: datetime,
) -> tuple[Recorded, KnownAccounts]:
    name, queue, seen = localpart(action.person), dict(recorded.queue), dict(recorded.seen)
    account, owners = known.accounts[name], dict(known.owners)
    assert not account.deactivated or isinstance(action, EraseAccount), f"{name} is deactivated"
    match action:
        case SetDisplayName(display_name=display_name):
            account = replace(account, display_name=display_name)
        case SetEmails(emails=emails):
            keys = {email.casefold() for email in emails}
            others = [one for one in known.accounts.values() if one.localpart != name]
            taken = {email.casefold() for other in others for email in other.emails or ()}
            assert keys.isdisjoint(taken), f"{name} can't have {keys & taken}"
            account = replace(account, emails=emails)
            owners = {key: owner for key, owner in owners.items() if owner != name}
            owners |= dict.fromkeys(keys, name)
        case LockAccount(user_id=user_id, period=period):
            assert account.locked is not action.ours
            account = replace(account, locked=True)
            if action.queues:
                queue[user_id] = Queued(
                    user_id=user_id,
                    localpart=name,
                    queued_at=now,
                    due_at=now + period,
                    reason=action.reason,
                    ours=action.ours,
                    held_by=queue[user_id].held_by if user_id in queue else None,
                )
        case UnlockAccount(user_id=user_id):
            assert queue[user_id].ours
            account = replace(account, locked=False)
            if action.leaves_queue:
                del queue[user_id]
        case EraseAccount(user_id=user_id):
            account = replace(account, deactivated=True)
            del queue[user_id], seen[user_id]
    accounts = {**known.accounts, name: account}
    return replace(recorded, queue=queue, seen=seen), replace(known, accounts=accounts, owners=owners)


def _with_caused(
    caused: Mapping[str, People], due: Iterable[AnyAction], ids: Mapping[str, str], roster: Roster
) -> Mapping[str, People]:
    """Leaves that we caused, those of these actions among them."""
    after = dict(caused)
    for action in due:
        if isinstance(action, Kick) and action.as_themselves:
            room_id = ids.get(action.room) or str(action.room_id)
            after[room_id] = after.get(room_id, NOBODY) | roster.people([localpart(action.person)])
    return after


def recall(recorded: Recorded, memory: Memory, roster: Roster, now: datetime) -> Recorded:
    """What is recorded once the memory is."""
    entitled, lapsed = dict(recorded.entitled), dict(recorded.lapsed)
    forgotten = {user_id for user_id, _ in memory.forget}
    regained = {key: dict(people) for key, people in recorded.regained.items()}
    for key, names in memory.lapsed.items():
        lapsed[key] = lapsed.get(key, NOBODY) | roster.people(names)
        for person in roster.people(names):
            regained.get(key, {}).pop(person, None)
    for key, names in memory.regained.items():
        lapsed[key] = lapsed.get(key, NOBODY) - roster.people(names)
        regained.setdefault(key, {}).update(dict.fromkeys(roster.people(names), now))
    caused = {
        room_id: people - roster.people(memory.returned.get(room_id, ()))
        for room_id, people in recorded.caused.items()
    }
    for key, names in memory.entitled.items():
        entitled[key] = entitled.get(key, NOBODY) | roster.people(names)
    return replace(
        recorded,
        fresh=recorded.fresh and not (memory.rooms or memory.seen),
        recovery_since=memory.recovery_since if memory.recovery_changed else recorded.recovery_since,
        rooms={**recorded.rooms, **{room.key: room for room in memory.rooms}},
        seen={
            key: seen
            for key, seen in {**recorded.seen, **{seen.id: seen for seen in memory.seen}}.items()
            if key not in forgotten
        },
        entitled=entitled,
        lapsed=lapsed,
        regained=regained,
        caused=caused,
        held=recorded.held if memory.held is None else memory.held,
        queue={
            **{
                key: queued
                for key, queued in recorded.queue.items()
                if key not in {*memory.dequeue, *forgotten}
            },
            **{queued.user_id: queued for queued in memory.enqueue},
        },
        clock=memory.clock or recorded.clock,
    )


def accept_invites(scene: Scene) -> Scene:
    """Everybody with an account joins where they are invited."""
    observed = scene.observed

    def accepted(room: Room) -> Room:
        accepting = room.invited & observed.accounts
        return replace(room, joined=room.joined | accepting, invited=room.invited - accepting)

    rooms = {key: accepted(room) for key, room in observed.rooms.items()}
    unmanaged = {room_id: accepted(room) for room_id, room in observed.unmanaged.items()}
    return replace(scene, observed=replace(observed, rooms=rooms, unmanaged=unmanaged))


def _counted(due: Iterable[AnyAction], now: datetime) -> Iterable[Done]:
    for action in due:
        kind = kind_of(action)
        if kind is not None and is_counted(action):
            for space in counted_in(action):
                yield Done(action.identity, kind, space, counted_as(action, SERVER), now)


def _create_rooms(due: Iterable[AnyAction], ids: dict[str, str], homeserver: ModelHomeserver) -> list[str]:
    """Makes rooms, parents first; gives their keys."""
    waiting = [action for action in due if isinstance(action, CreateRoom)]
    made = []
    while waiting:
        ready = [action for action in waiting if action.parent is None or action.parent in ids]
        assert ready, f"these wait for parents that nobody makes: {identities(waiting)}"
        for action in ready:
            assert action.room not in ids, f"{action.room} exists already"
            state: list[Mapping[str, object]] = [
                {"type": kind, "state_key": "", "content": _with_ids(content, ids)}
                for kind, content in action.state.items()
            ]
            if action.parent:
                parent = {"via": [SERVER], "canonical": True}
                state.append({"type": PARENT, "state_key": ids[action.parent], "content": parent})
            ids[action.room] = homeserver.create_room(
                NewRoom(
                    key=action.room,
                    is_space=isinstance(action, CreateSpace),
                    name=action.name,
                    room_version=action.room_version,
                    state=state,
                    power_levels={**action.power_levels, "users": {}},
                    invite=(),
                    predecessor=action.predecessor,
                )
            )
            made.append(action.room)
        waiting = [action for action in waiting if action not in ready]
    return made


def _carry_out(action: AnyAction, ids: Mapping[str, str], homeserver: ModelHomeserver, now: datetime) -> None:
    room_id = ids.get(action.room) or action.room_id
    assert room_id is not None
    assert not isinstance(action, AccountAction)
    match action:
        case SetRoomState(event_type=kind, content=content) if kind == LEVELS:
            homeserver.change_power_levels(room_id, content, {})
        case SetRoomState(event_type=kind, content=content, acting_as=acting_as):
            homeserver.put_state(room_id, kind, "", _with_ids(content, ids), acting_as)
        case PersonAction():
            _carry_out_on_person(action, room_id, homeserver, now)
        case AddChild(child=child, suggested=suggested):
            if action.child_id is not None:
                homeserver.put_state(ids[child], PARENT, room_id, {"via": [SERVER], "canonical": True})
            content = {"via": [SERVER], **({"suggested": True} if suggested else {})}
            homeserver.put_state(room_id, CHILD, ids[child], content)
        case RemoveChild(child_id=child_id):
            if action.is_ours:
                homeserver.put_state(child_id, PARENT, room_id, {})
            homeserver.put_state(room_id, CHILD, child_id, {})
        case TakeControl() | ReleaseRoom() | AbandonSpace():
            _change_hands(action, room_id, homeserver)
        case CreateRoom() | SetExpectations() | InviteAgent():
            raise AssertionError("rooms are made first, and shared with nobody: see `federating`")


def _change_hands(
    action: TakeControl | ReleaseRoom | AbandonSpace, room_id: str, homeserver: ModelHomeserver
) -> None:
    match action:
        case TakeControl(acting_as=acting_as):
            homeserver.take_control(room_id, acting_as, invites=action.invites)
            homeserver.put_state(room_id, MARKER_TYPE, BOT, marker_content(INSTANCE, action))
        case ReleaseRoom(restore=restore, tombstone_level=lowered):
            events = {} if lowered is None else {"events": {"m.room.tombstone": lowered}}
            homeserver.change_power_levels(room_id, events, restore)
            homeserver.put_state(room_id, MARKER_TYPE, BOT, {})
            if action.leaves:
                homeserver.leave(room_id)
        case AbandonSpace():
            homeserver.leave(room_id)


def _carry_out_on_person(
    action: Invite | Join | Kick | SetPowerLevel, room_id: str, homeserver: ModelHomeserver, now: datetime
) -> None:
    match action:
        case SetPowerLevel(person=person, level=level, as_themselves=True):
            homeserver.lower_own_level(room_id, person, level)
        case SetPowerLevel(person=person, level=level):
            homeserver.change_power_levels(room_id, None, {person: level})
        case Kick(person=person, as_themselves=True):
            homeserver.leave_as(room_id, person, int(now.timestamp() * 1000))
        case Kick(person=person):
            homeserver.kick(room_id, person)
        case Invite(person=person, acting_as=acting_as):
            homeserver.invite(room_id, person, acting_as)
        case Join(person=person, needs_invite=needs_invite):
            if needs_invite:
                homeserver.invite(room_id, person)
            homeserver.join_as(room_id, person)


def _with_ids(content: Mapping[str, object], ids: Mapping[str, str]) -> dict[str, object]:
    if isinstance(replacement := content.get("replacement_room"), str):
        return {**content, "replacement_room": ids[replacement]}
    allow = content.get("allow")
    if not isinstance(allow, list):
        return dict(content)
    named = [rule for rule in allow if rule.get("space", rule.get("room_id")) in {*ids, *ids.values()}]
    rules = [
        {"type": rule["type"], "room_id": ids[rule["space"]] if "space" in rule else rule["room_id"]}
        for rule in named
    ]
    return {**content, "allow": rules}
