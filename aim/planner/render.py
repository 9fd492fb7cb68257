"""The plan for people: a tree by space, with signs and colours, folded where it would scroll by. Pure.

Gives rich renderables; where they go, and whether in colour, is the caller's business. Spaces and rooms are
shown by their keys, mirrored spaces by their names.
`+` adds, `~` changes, `-` takes away, `!` is held by a guard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from aim.directory.model import Severity
from aim.planner.actions import (
    ORDER,
    AbandonSpace,
    Accept,
    AccountAction,
    AddChild,
    AnyAccountAction,
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
from aim.planner.document import digest
from aim.planner.guards import Trip
from aim.planner.plan import Plan

_ACCOUNTS = "accounts"
"""The branch of actions on accounts: they are in no space."""
FOLD_FROM = 40
"""A plan with more actions than this is folded: people with the same action and reason share a line."""
NAMES = 3
"""So many are named on a folded line."""
_STYLES = {"+": "green", "~": "yellow", "-": "red", "!": "bold magenta"}
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_SEVERITIES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def render(plan: Plan, *, unfold: bool = False) -> RenderableType:
    """The whole plan. `unfold` gives every action a line of its own, however many there are."""
    parts: list[RenderableType] = []
    fold = not unfold and len(plan.actions) > FOLD_FROM
    if plan.actions:
        parts.append(_Spaces(plan, fold=fold).tree())
    if plan.problems:
        parts.append(_problems(plan))
    parts.extend(Text(f"! held: {held_by(plan, trip)}", style=_STYLES["!"]) for trip in plan.trips)
    if plan.trips:
        parts.append(
            Text("  if that is right: aim approve DIGEST, with the digest below", style=_STYLES["!"])
        )
    parts.append(summary(plan))
    return Group(*parts)


def held_by(plan: Plan, trip: Trip) -> str:
    """What a trip says, with the name of a mirrored space."""
    return trip.message.replace(trip.scope, plan.named(trip.scope))


class _Spaces:
    """Lays the actions out as the spaces are nested."""

    def __init__(self, plan: Plan, *, fold: bool) -> None:
        self._plan = plan
        self._fold = fold
        self._own_server = f":{plan.server_name}"
        self._branches: dict[str, Tree] = {}
        self._root = Tree(Text(f"{plan.source.type} → {plan.server_name}", style="bold"), guide_style="dim")

    def tree(self) -> Tree:
        in_rooms = [action for action in self._plan.actions if not isinstance(action, AccountAction)]
        on_accounts = [action for action in self._plan.actions if isinstance(action, AccountAction)]
        if on_accounts:
            branch = self._root.add(Text(_ACCOUNTS, style="bold"), guide_style="dim")
            # One kind after the other: so those alike can share a line.
            for line in self._lines(sorted(on_accounts, key=lambda action: ORDER[action.type])):
                branch.add(line)
        actions = sorted(in_rooms, key=lambda action: (self._path(action.space), action.sort_key))
        for space, in_space in groupby(actions, key=lambda action: action.space):
            branch = self._branch(space)
            for room, in_room in groupby(in_space, key=lambda action: action.room):
                where = branch
                if room != space:
                    where = branch.add(Text(room.rpartition("/")[2], style="bold"), guide_style="dim")
                for line in self._lines(list(in_room)):
                    where.add(line)
        return self._root

    def _path(self, space: str) -> tuple[tuple[str, str], ...]:
        """By what spaces are sorted: as they are shown."""
        parent = self._plan.parents.get(space)
        return (*(self._path(parent) if parent else ()), (self._plan.named(space), space))

    def _branch(self, space: str) -> Tree:
        """Where the space is shown, below its parents."""
        if space not in self._branches:
            parent = self._plan.parents.get(space)
            above = self._branch(parent) if parent else self._root
            self._branches[space] = above.add(Text(self._plan.named(space), style="bold"), guide_style="dim")
        return self._branches[space]

    def _lines(self, actions: Sequence[AnyAction]) -> Iterator[Text]:
        if not self._fold:
            yield from (_line(action, self._what(action)) for action in actions)
            return
        for _, alike in groupby(actions, key=lambda action: (action.type, action.held, _folding(action))):
            same = list(alike)
            people = [action.person for action in same if isinstance(action, PersonAction)]
            yield _line(same[0], self._about(same[0], people) if people else self._what(same[0]))

    def _what(self, action: AnyAction) -> str:
        match action:
            case CreateRoom(name=name):
                return f"create {'space' if isinstance(action, CreateSpace) else 'room'} “{name}”"
            case SetRoomState(event_type=event_type, content=content, acting_as=acting_as):
                how = f", acting as {self._names([acting_as])}" if acting_as else ""
                return f"set {event_type} to {_short(content)}{how}"
            case AddChild() | RemoveChild():
                verb = "add" if isinstance(action, AddChild) else "remove"
                return f"{verb} child {self._plan.named(action.child)}"
            case PersonAction():
                return self._about(action, [action.person])
            case TakeControl() | ReleaseRoom() | AbandonSpace():
                return self._handed_over(action)
            case SetExpectations() | InviteAgent():
                return _shared(action)

    def _on_account(self, action: AnyAccountAction, people: Sequence[str]) -> str:
        who = self._names(people)
        match action:
            case RegisterAccount():
                return f"register {who}"
            case SetDisplayName(display_name=name):
                return f"name {who} “{name}”" if len(people) == 1 else f"set the display names of {who}"
            case SetEmails(emails=emails):
                given = f" to {', '.join(emails) or 'none'}" if len(people) == 1 else ""
                return f"set the e-mail addresses of {who}{given}"
            case LockAccount():
                return f"lock {who}"
            case UnlockAccount():
                return f"unlock {who}"
            case EraseAccount():
                return f"erase {who}"

    def _handed_over(self, action: TakeControl | ReleaseRoom | AbandonSpace) -> str:
        match action:
            case TakeControl(acting_as=acting_as):
                how = f", acting as {self._names([acting_as])}" if acting_as else ""
                return f"take control of {action.room_id}{how}"
            case ReleaseRoom(leaves=leaves):
                return f"release {action.room_id}" + ("" if leaves else ", but stay in it")
            case AbandonSpace():
                return f"abandon the space {action.room_id}"

    def _about(self, action: AnyAction, people: Sequence[str]) -> str:
        if isinstance(action, AccountAction):
            return self._on_account(action, people)
        who = self._names(people)
        match action:
            case SetPowerLevel(was=was, level=level):
                return f"level {was} → {level} for {who}{_themselves(action)}"
            case Kick():
                return f"kick {who}{_themselves(action)}"
            case Join():
                asked = f", asked in by {action.inviter}" if isinstance(action, Accept) else ""
                return f"join {who}{asked}"
            case Invite(acting_as=str(member)):
                return f"invite {who}, acting as {self._names([member])}"
            case _:
                return f"invite {who}"

    def _names(self, people: Sequence[str]) -> str:
        """MXIDs, without the name of our own server, which goes without saying."""
        shown = ", ".join(mxid.removesuffix(self._own_server) for mxid in people[:NAMES])
        if len(people) == 1:
            return shown
        more = f", … {len(people) - NAMES} more" if len(people) > NAMES else ""
        return f"{len(people)} people: {shown}{more}"


def _shared(action: SetExpectations | InviteAgent) -> str:
    match action:
        case SetExpectations(agents=agents):
            return f"tell {', '.join(agents) or 'other servers'} whom to bring in"
        case InviteAgent(agent=agent):
            return f"invite the agent {agent}"


def _folding(action: AnyAction) -> str:
    """What must be the same for people to share a line; actions on no person keep lines of their own."""
    if not isinstance(action, PersonAction):
        return action.identity
    level = f"{action.was} {action.level} " if isinstance(action, SetPowerLevel) else ""
    return f"{level}{action.details.get('acting_as') is None} {action.reason}{_until(action)}"


def _themselves(action: Kick | SetPowerLevel) -> str:
    return ", acting as them" if action.as_themselves else ""


def _line(action: AnyAction, what: str) -> Text:
    sign = "!" if action.held else _sign(action)
    line = Text().append(f"{sign} {what}", style=_STYLES[sign])
    if action.held:
        line.append(" (held)", style=_STYLES[sign])
    return line.append(f" — {action.reason}{_until(action)}", style="dim")


def _until(action: AnyAction) -> str:
    """Of a lock: what comes after it."""
    # Who is on the queue already keeps the time that they have there.
    if not isinstance(action, LockAccount) or not action.queues:
        return ""
    return f"; erased after {_time(action.period)}" if action.period else "; erased by the next cycle"


def _time(period: timedelta) -> str:
    """In the largest unit that leaves no rest."""
    seconds = int(period.total_seconds())
    size, unit = next((size, unit) for size, unit in _UNITS if seconds % size == 0)
    number = seconds // size
    return f"{number} {unit}" + ("" if number == 1 else "s")


def _sign(action: AnyAction) -> str:
    match action:
        case Kick() | RemoveChild() | ReleaseRoom() | AbandonSpace() | LockAccount() | EraseAccount():
            return "-"
        case SetRoomState() | SetPowerLevel() | TakeControl() | SetExpectations():
            return "~"
        case SetDisplayName() | SetEmails() | UnlockAccount():
            return "~"
        case _:
            return "+"


def _short(content: object) -> str:
    if isinstance(content, dict) and len(content) == 1:
        return f"“{next(iter(content.values()))}”"
    return "the configured content"


def _problems(plan: Plan) -> RenderableType:
    tree = Tree(Text("Problems", style="bold"), guide_style="dim")
    for problem in plan.problems:
        line = Text().append(f"{problem.severity} ", style=_SEVERITIES[problem.severity])
        line.append(f"{plan.named(problem.subject)}: ", style="bold").append(problem.message)
        tree.add(line)
    return tree


def summary(plan: Plan) -> RenderableType:
    """The numbers and the digest: what is left when the plan itself was seen before."""
    counts = {"+": 0, "~": 0, "-": 0}
    for action in plan.actions:
        counts[_sign(action)] += 1
    source = plan.source
    line = Text(f"{source.users} users and {source.groups} groups from {source.type}: ", style="dim")
    if not plan.actions:
        line.append("nothing to do", style="bold green")
        return line
    for sign, verb in (("+", "add"), ("~", "change"), ("-", "take away")):
        line.append(f"{counts[sign]} to {verb}", style=_STYLES[sign] if counts[sign] else "dim").append(", ")
    line.append(f"{len(plan.held)} held", style=_STYLES["!"] if plan.held else "dim")
    return Group(line, Text(f"digest {digest(plan)}", style="dim"))
