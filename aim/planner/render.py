"""The plan for people: a tree by space, with signs and colours, folded where it would scroll by. Pure.

Gives rich renderables; where they go, and whether in colour, is the caller's business.
`+` adds, `~` changes, `-` takes away, `!` is held by a guard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from aim.directory.model import Problem, Severity
from aim.planner.actions import (
    AddChild,
    AnyAction,
    CreateRoom,
    CreateSpace,
    Invite,
    Kick,
    PersonAction,
    RemoveChild,
    SetPowerLevel,
    SetRoomState,
)
from aim.planner.document import digest
from aim.planner.plan import Plan

FOLD_FROM = 40
"""A plan with more actions than this is folded: people with the same action and reason share a line."""
NAMES = 3
"""So many are named on a folded line."""
_STYLES = {"+": "green", "~": "yellow", "-": "red", "!": "bold magenta"}
_SEVERITIES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


def render(plan: Plan, *, unfold: bool = False) -> RenderableType:
    """The whole plan. `unfold` gives every action a line of its own, however many there are."""
    parts: list[RenderableType] = []
    fold = not unfold and len(plan.actions) > FOLD_FROM
    for _, in_space in groupby(plan.actions, key=lambda action: action.space):
        parts.append(_space(list(in_space), fold=fold))
    if plan.problems:
        parts.append(_problems(plan.problems))
    parts.extend(Text(f"! held: {trip.message}", style=_STYLES["!"]) for trip in plan.trips)
    parts.append(summary(plan))
    return Group(*parts)


def _space(actions: Sequence[AnyAction], *, fold: bool) -> Tree:
    tree = Tree(Text(actions[0].space, style="bold"), guide_style="dim")
    for room, in_room in groupby(actions, key=lambda action: action.room):
        branch = tree
        if room != actions[0].space:
            branch = tree.add(Text(room.rpartition("/")[2], style="bold"), guide_style="dim")
        for line in _lines(list(in_room), fold=fold):
            branch.add(line)
    return tree


def _lines(actions: Sequence[AnyAction], *, fold: bool) -> Iterator[Text]:
    if not fold:
        yield from (_line(action, _what(action)) for action in actions)
        return
    for _, alike in groupby(actions, key=lambda action: (action.type, action.held, _folding(action))):
        same = list(alike)
        people = [action.person for action in same if isinstance(action, PersonAction)]
        yield _line(same[0], _what(same[0]) if len(people) <= 1 else _what_of(same[0], people))


def _folding(action: AnyAction) -> str:
    """What must be the same for people to share a line; actions on no person keep lines of their own."""
    if not isinstance(action, PersonAction):
        return action.identity
    level = f"{action.was} {action.level} " if isinstance(action, SetPowerLevel) else ""
    return level + action.reason


def _line(action: AnyAction, what: str) -> Text:
    sign = "!" if action.held else _sign(action)
    line = Text(f"{sign} {what}", style=_STYLES[sign])
    line.append(f"  {action.reason}", style="dim")
    if action.held:
        line.append("  held", style=_STYLES["!"])
    return line


def _sign(action: AnyAction) -> str:
    match action:
        case Kick() | RemoveChild():
            return "-"
        case SetRoomState() | SetPowerLevel():
            return "~"
        case _:
            return "+"


def _what(action: AnyAction) -> str:
    match action:
        case CreateSpace(name=name):
            return f"create space “{name}”"
        case CreateRoom(name=name):
            return f"create room “{name}”"
        case SetRoomState(event_type=event_type, content=content):
            return f"set {event_type} to {_short(content)}"
        case AddChild(child=child):
            return f"add child {child}"
        case RemoveChild(child=child):
            return f"remove child {child}"
        case Invite() | Kick() | SetPowerLevel():
            return _what_of(action, [action.person])


def _what_of(action: AnyAction, people: Sequence[str]) -> str:
    who = _names(people)
    match action:
        case SetPowerLevel(was=was, level=level):
            return f"level of {who}: {was} → {level}"
        case Kick():
            return f"kick {who}"
        case _:
            return f"invite {who}"


def _names(people: Sequence[str]) -> str:
    if len(people) == 1:
        return people[0]
    more = f", … {len(people) - NAMES} more" if len(people) > NAMES else ""
    return f"{len(people)} people: {', '.join(people[:NAMES])}{more}"


def _short(content: object) -> str:
    if isinstance(content, dict) and len(content) == 1:
        return f"“{next(iter(content.values()))}”"
    return "the configured content"


def _problems(problems: Iterable[Problem]) -> RenderableType:
    tree = Tree(Text("Problems", style="bold"), guide_style="dim")
    for problem in problems:
        line = Text(f"{problem.severity} ", style=_SEVERITIES[problem.severity])
        line.append(f"{problem.subject}: ", style="bold").append(problem.message)
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
