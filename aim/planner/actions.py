"""Actions: the typed changes a plan is made of. Small frozen data with an identity, a reason and an order.

Made by `diff`, judged by `guards`, carried out by `provisioner`. One action is one room and one
person or key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar, Self

from aim.world.federation import Expectations, ExpectedGroup


class ActionType(StrEnum):
    """In the order in which the actions of one room are shown and done."""

    CREATE_SPACE = "create_space"
    CREATE_ROOM = "create_room"
    TAKE_CONTROL = "take_control"
    SET_ROOM_STATE = "set_room_state"
    SET_POWER_LEVEL = "set_power_level"
    KICK = "kick"
    INVITE = "invite"
    JOIN = "join"
    SET_EXPECTATIONS = "set_expectations"
    REMOVE_CHILD = "remove_child"
    ADD_CHILD = "add_child"
    RELEASE_ROOM = "release_room"
    ABANDON_SPACE = "abandon_space"
    INVITE_AGENT = "invite_agent"
    REGISTER_ACCOUNT = "register_account"
    UNLOCK_ACCOUNT = "unlock_account"
    SET_DISPLAY_NAME = "set_display_name"
    SET_EMAILS = "set_emails"
    LOCK_ACCOUNT = "lock_account"
    ERASE_ACCOUNT = "erase_account"


ORDER: Mapping[ActionType, int] = {kind: position for position, kind in enumerate(ActionType)}


def identity_of(type_: str, room: str, target: str | None = None, level: int | None = None) -> str:
    """`type room target`, and the level that `set_power_level` gives: who approves one demotion has not
    approved a deeper one. Keys are free text: a blank in a part is written as `%20`."""
    parts = (type_, room, target, None if level is None else str(level))
    return " ".join(part.replace("%", "%25").replace(" ", "%20") for part in parts if part)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What all actions share. Never instantiated itself: see the classes below."""

    type: ClassVar[ActionType]

    room: str
    """Our stable key of the room or space."""
    space: str
    """Key of the space it belongs to: itself for a space, the parent for a default room."""
    reason: str
    room_id: str | None = None
    """None while the room does not exist yet."""
    after: tuple[str, ...] = ()
    """Identities of the actions this one depends on, sorted."""
    held: bool = False
    """True if a guard holds it."""

    @property
    def target(self) -> str | None:
        """Who or what in the room is meant: an MXID, an event type, a child's key; None: the room itself."""
        raise NotImplementedError

    @property
    def details(self) -> Mapping[str, object]:
        """What else a reader needs to know; JSON values only, never a secret."""
        raise NotImplementedError

    @property
    def identity(self) -> str:
        """Unique in a plan, equal in the next plan for the same change: see `identity_of`."""
        return identity_of(self.type, self.room, self.target)

    @property
    def sort_key(self) -> tuple[str, str, int, str]:
        """Plans are ordered by space, then room (a space before its rooms), then kind, then target."""
        return (self.space, "" if self.room == self.space else self.room, ORDER[self.type], self.target or "")

    def hold(self) -> Self:
        """The same action, held by a guard."""
        return replace(self, held=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRoom(Action):
    """`POST /createRoom`, with all its state, marker and complete power levels, and the first invites."""

    type: ClassVar[ActionType] = ActionType.CREATE_ROOM

    name: str
    parent: str | None
    """Key of the space it becomes a child of."""
    room_version: str | None = None
    """None: the homeserver's default."""
    state: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Event type → content of the state events with an empty key. `allow` rules name spaces by our key
    (`{"type": "m.room_membership", "space": key}`), as the room id may not exist yet."""
    power_levels: Mapping[str, object] = field(default_factory=dict)
    """All keys of `m.room.power_levels` but `users`."""
    predecessor: str | None = None
    """Id of the room that it replaces."""

    @property
    def target(self) -> str | None:
        return None

    @property
    def details(self) -> Mapping[str, object]:
        return {
            "name": self.name,
            "parent": self.parent,
            "room_version": self.room_version,
            "state": {kind: dict(content) for kind, content in sorted(self.state.items())},
            **({} if self.predecessor is None else {"predecessor": self.predecessor}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSpace(CreateRoom):
    """`POST /createRoom` with `type: m.space`."""

    type: ClassVar[ActionType] = ActionType.CREATE_SPACE


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeControl(Action):
    """Gets the bot into a room that people made, with level 100, by acting as somebody who can grant that;
    writes our marker."""

    type: ClassVar[ActionType] = ActionType.TAKE_CONTROL

    acting_as: str | None
    """MXID of the local member who lets us in and gives us the level; None if we have both already."""
    creator: str
    """MXID of who made the room: the marker remembers it."""
    creator_level: int | None
    """The level they have now; None above every level."""
    invites: bool = True
    """False: the bot is in already and needs the level, or the marker, only."""

    @property
    def target(self) -> str | None:
        return None

    @property
    def details(self) -> Mapping[str, object]:
        return {"acting_as": self.acting_as, "creator": self.creator, "creator_level": self.creator_level}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRoom(Action):
    """Empties our marker, gives the creator back the level we took, and leaves the room to itself."""

    type: ClassVar[ActionType] = ActionType.RELEASE_ROOM

    restore: Mapping[str, int] = field(default_factory=dict)
    """MXID → level given back before we leave."""
    tombstone_level: int | None = None
    """What m.room.tombstone is lowered to, where we made the room and moderators could not close it."""
    leaves: bool = True
    """False: nobody who could let us in again would remain, so the bot stays, inert."""

    @property
    def target(self) -> str | None:
        return None

    @property
    def details(self) -> Mapping[str, object]:
        return {
            "restore": dict(sorted(self.restore.items())),
            "tombstone_level": self.tombstone_level,
            "leaves": self.leaves,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AbandonSpace(Action):
    """The bot leaves a space that is no longer configured, after all were kicked: nobody can come back."""

    type: ClassVar[ActionType] = ActionType.ABANDON_SPACE

    @property
    def target(self) -> str | None:
        return None

    @property
    def details(self) -> Mapping[str, object]:
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetRoomState(Action):
    """Writes one state event with an empty key; for `m.room.power_levels`, the keys other than `users`."""

    type: ClassVar[ActionType] = ActionType.SET_ROOM_STATE

    event_type: str
    content: Mapping[str, object]
    """A tombstone's `replacement_room` is our key of the room that replaces this one, which may not exist
    yet."""
    acting_as: str | None = None
    """MXID of who made the room, where it is theirs; None: the bot."""

    @property
    def target(self) -> str | None:
        return self.event_type

    @property
    def details(self) -> Mapping[str, object]:
        acting_as = {} if self.acting_as is None else {"acting_as": self.acting_as}
        return {**acting_as, "content": dict(self.content)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AddChild(Action):
    """`m.space.child` in the space `room` for the room or space `child`."""

    type: ClassVar[ActionType] = ActionType.ADD_CHILD

    child: str
    child_id: str | None
    suggested: bool = False

    @property
    def target(self) -> str | None:
        return self.child

    @property
    def details(self) -> Mapping[str, object]:
        return {"child_id": self.child_id, "suggested": self.suggested}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveChild(Action):
    """Empties `m.space.child` in the space `room` for a room of ours that belongs elsewhere, or for one of
    people that another one has replaced."""

    type: ClassVar[ActionType] = ActionType.REMOVE_CHILD

    child: str
    child_id: str
    is_ours: bool = True
    """False: its own `m.space.parent` is left as it is."""

    @property
    def target(self) -> str | None:
        return self.child

    @property
    def sort_key(self) -> tuple[str, str, int, str]:
        """What is replaced goes when the new room has come: were it broken off, nobody would know of that."""
        space, room, order, child = super(RemoveChild, self).sort_key
        return (
            (space, room, order, child) if self.is_ours else (space, room, ORDER[AddChild.type], f"~{child}")
        )

    @property
    def details(self) -> Mapping[str, object]:
        return {"child_id": self.child_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetExpectations(Action):
    """Tells the bots of other servers, by a state event of ours in the space, whom they are to bring in."""

    type: ClassVar[ActionType] = ActionType.SET_EXPECTATIONS

    agents: Mapping[str, tuple[ExpectedGroup, ...]]
    """MXID of the bot → its groups."""
    former: Mapping[str, int | None]
    """MXID of a bot that is to go → since when, milliseconds; None: from when this is done."""

    @property
    def target(self) -> str | None:
        return None

    @property
    def details(self) -> Mapping[str, object]:
        content = Expectations(agents=self.agents).content
        return {"agents": content["agents"], "former": dict(sorted(self.former.items()))}


@dataclass(frozen=True, slots=True, kw_only=True)
class InviteAgent(Action):
    """Asks the bot of another server in. Never part of a createRoom: its server may be away."""

    type: ClassVar[ActionType] = ActionType.INVITE_AGENT

    agent: str
    """MXID."""

    @property
    def target(self) -> str | None:
        return self.agent

    @property
    def details(self) -> Mapping[str, object]:
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAction(Action):
    """An action on one person of our homeserver; of another one, only if they are to go (see Kick), or as a
    bot that looks after people there (see SetPowerLevel)."""

    person: str
    """MXID."""

    @property
    def target(self) -> str | None:
        return self.person


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite(PersonAction):
    type: ClassVar[ActionType] = ActionType.INVITE

    acting_as: str | None = None
    """MXID of the local member who asks them in, where the room is not ours; None: the bot."""

    @property
    def details(self) -> Mapping[str, object]:
        return {"acting_as": self.acting_as}


@dataclass(frozen=True, slots=True, kw_only=True)
class Join(PersonAction):
    """Acting as the person: they are in, without having to answer an invite."""

    type: ClassVar[ActionType] = ActionType.JOIN

    needs_invite: bool
    """False where the join rule lets them in by itself, or they are invited already."""

    @property
    def details(self) -> Mapping[str, object]:
        return {"acting_as": self.person, "needs_invite": self.needs_invite}


@dataclass(frozen=True, slots=True, kw_only=True)
class Accept(Join):
    """The bot itself comes in where the bot of another server, one of `federates_with`, has asked it in."""

    inviter: str
    """MXID."""

    @property
    def details(self) -> Mapping[str, object]:
        return {"acting_as": None, "needs_invite": False, "inviter": self.inviter}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kick(PersonAction):
    """Removes a member, or takes an invite back."""

    type: ClassVar[ActionType] = ActionType.KICK

    guarded: bool = True
    """False for somebody who was never entitled and came in after we managed the room."""
    as_themselves: bool = False
    """True where they stand above us or beside us: acting as them, they leave."""
    last: bool = False
    """True for the bot of another server: it goes after its people."""

    @property
    def sort_key(self) -> tuple[str, str, int, str]:
        space, room, order, person = super(Kick, self).sort_key
        return (space, room, order, f"~{person}" if self.last else person)

    @property
    def details(self) -> Mapping[str, object]:
        return {"acting_as": self.person if self.as_themselves else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPowerLevel(PersonAction):
    type: ClassVar[ActionType] = ActionType.SET_POWER_LEVEL

    level: int
    was: int
    as_themselves: bool = False
    """True for somebody of the bot's own level: acting as them, they lower their own."""

    @property
    def identity(self) -> str:
        return identity_of(self.type, self.room, self.target, self.level)

    @property
    def is_demotion(self) -> bool:
        """Not so in a room that is yet to be made: there nobody has anything to lose."""
        return self.level < self.was and self.room_id is not None

    @property
    def details(self) -> Mapping[str, object]:
        acting_as = self.person if self.as_themselves else None
        return {"acting_as": acting_as, "level": self.level, "was": self.was}


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountAction(PersonAction):
    """An action on the account of one person. Its `room` is the account's key, their MXID; its `space` "",
    so accounts come first in a plan."""

    in_spaces: tuple[str, ...] = ()
    """Keys of the managed spaces that the person is in, sorted: where it counts against a guard."""

    @property
    def identity(self) -> str:
        return identity_of(self.type, "", self.target)


def account_key(mxid: str) -> str:
    """The key of an account, among keys of rooms: the MXID itself."""
    return mxid


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAccount(AccountAction):
    """Makes the account of a user who has none, without a password: how they log in is not our business."""

    type: ClassVar[ActionType] = ActionType.REGISTER_ACCOUNT

    user_id: str

    @property
    def details(self) -> Mapping[str, object]:
        return {"user_id": self.user_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDisplayName(AccountAction):
    """Gives an account the display name that the directory has."""

    type: ClassVar[ActionType] = ActionType.SET_DISPLAY_NAME

    display_name: str
    was: str | None

    @property
    def details(self) -> Mapping[str, object]:
        return {"display_name": self.display_name, "was": self.was}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetEmails(AccountAction):
    """Gives an account the e-mail addresses that the directory has; other third-party ids stay."""

    type: ClassVar[ActionType] = ActionType.SET_EMAILS

    emails: tuple[str, ...]
    """All that it should have, sorted."""
    was: tuple[str, ...]

    @property
    def details(self) -> Mapping[str, object]:
        return {"emails": list(self.emails), "was": list(self.was)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LockAccount(AccountAction):
    """Locks the account of somebody who left, and puts them on the deprovisioning queue."""

    type: ClassVar[ActionType] = ActionType.LOCK_ACCOUNT

    user_id: str
    period: timedelta
    """How long after that the account may be erased."""
    queues: bool = True
    """False: they are on the queue already, and stay there as they are."""
    ours: bool = True
    """False: the account is locked already, by somebody else; they are only put on the queue."""

    @property
    def details(self) -> Mapping[str, object]:
        return {"user_id": self.user_id, "erased_after_seconds": int(self.period.total_seconds())}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockAccount(AccountAction):
    """Unlocks an account that we locked, and takes its person off the queue."""

    type: ClassVar[ActionType] = ActionType.UNLOCK_ACCOUNT

    user_id: str
    leaves_queue: bool = True
    """False for somebody whom a person restored: that stays known until they are in the directory again."""

    @property
    def details(self) -> Mapping[str, object]:
        return {"user_id": self.user_id}


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseAccount(AccountAction):
    """Deactivates an account for good, and erases what its user wrote and what we remember of them."""

    type: ClassVar[ActionType] = ActionType.ERASE_ACCOUNT

    user_id: str
    due_at: datetime
    """UTC."""

    @property
    def details(self) -> Mapping[str, object]:
        return {"user_id": self.user_id, "due_at": self.due_at.strftime("%Y-%m-%dT%H:%M:%SZ")}


AnyAccountAction = RegisterAccount | SetDisplayName | SetEmails | LockAccount | UnlockAccount | EraseAccount
"""All there are on accounts, for exhaustive matches."""

AnyRoomAction = (
    CreateRoom
    | CreateSpace
    | TakeControl
    | SetRoomState
    | AddChild
    | RemoveChild
    | Invite
    | Join
    | Kick
    | SetPowerLevel
    | ReleaseRoom
    | AbandonSpace
    | SetExpectations
    | InviteAgent
)
"""All there are in rooms, for exhaustive matches."""

AnyAction = AnyRoomAction | AnyAccountAction
"""All there are."""
