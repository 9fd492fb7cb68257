"""An explanation as text and as JSON. Pure.

Text answers the question on its first line; what follows says why, in lines that are aligned. Times are in
UTC, to the minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from aim.directory.model import Problem
from aim.planner.actions import AnyAction, InviteAgent, SetPowerLevel
from aim.planner.explain import Explanation, PersonAnswer, RoomAnswer
from aim.planner.standing import Standing
from aim.planner.subjects import PersonKind
from aim.world.audit import Happened
from aim.world.recorded import Queued

FORMAT_VERSION = 1
_LABEL = 10
_NO_RECORD = "nothing is recorded yet: since when, and what happened before, is not known"


def moment(at: datetime) -> str:
    """ISO 8601, UTC, to the minute."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%MZ}"


# -- text ------------------------------------------------------------------------------------------------


def to_lines(found: Explanation) -> list[str]:
    """What a person reads, line by line."""
    return [_printable(line) for line in _lines(found)]


def _printable(line: str) -> str:
    """Names come from anybody: nothing in them may steer the terminal."""
    return "".join(letter if letter.isprintable() else "�" for letter in line).rstrip()


def _lines(found: Explanation) -> Iterator[str]:
    if found.person is not None and found.room is not None:
        for standing in found.standings:
            yield from _whole(standing)
        yield from _problems([*found.person.problems, *found.room.problems])
    elif found.person is not None:
        yield from _person(found.person)
        yield from _table((standing.room, standing) for standing in found.standings)
    elif found.room is not None:
        yield from _room(found.room)
        yield from _table((standing.person, standing) for standing in found.standings)
    if found.left_out:
        yield f"and {found.left_out} more: add --all"
    if not found.is_recorded:
        yield _NO_RECORD


def _labelled(label: str, text: str) -> str:
    return f"  {label:<{_LABEL}}{text}"


def _whole(standing: Standing) -> Iterator[str]:
    """Everything about one person in one room."""
    yield f"{standing.person} {_is_in(standing)}{_with_level(standing)}"
    yield _labelled("because", standing.reason)
    if standing.level_reason and (standing.wanted_level or standing.level):
        yield _labelled("level", standing.level_reason)
    for way in standing.through:
        gives = f", level {way.level}" if way.level else ""
        yield _labelled("through", f"{way.group} of space {way.space}{gives}")
    if standing.since is not None:
        yield _labelled("since", moment(standing.since))
    if standing.last is not None:
        yield _labelled("last", _happened(standing.last))
    for obstacle in standing.against:
        yield _labelled("against", obstacle.text)
    yield from _next(standing.next)
    if not standing.next:
        yield _labelled("next", "nothing")


_IS = {
    "join": "is in",
    "invite": "is invited to",
    "knock": "asks to be let into",
    "ban": "is banned from",
    "leave": "left",
}


def _is_in(standing: Standing) -> str:
    """The answer itself."""
    said = f"{_IS.get(standing.membership or '', 'is not in')} {standing.named}"
    if standing.membership == "leave" and standing.left_at is not None:
        said += f" at {moment(standing.left_at)}"
    if standing.membership in {"join", "invite", "knock"}:
        return f"{said}, without a right to be" if standing.entitled is False else said
    if standing.entitled is None:
        return said
    return f"{said}, {'and should be in' if standing.entitled else 'and has no right to be'}"


def _with_level(standing: Standing) -> str:
    level = _level(standing)
    return f", {level}" if level else ""


def _level(standing: Standing) -> str:
    if standing.above_all:
        return "above every level"
    wanted = standing.wanted_level
    if standing.level is None:
        return f"level {wanted} to come" if wanted else ""
    if wanted is not None and wanted != standing.level:
        return f"level {standing.level}, should be {wanted}"
    return f"level {standing.level}" if standing.level or standing.membership == "join" else ""


def _happened(last: Happened) -> str:
    cause = f", {last.message}" if last.message else ""
    return f"{last.type} {last.status} at {moment(last.at)} ({last.reason}){cause}"


def _next(actions: Sequence[AnyAction]) -> Iterator[str]:
    for action in actions:
        yield _labelled("next", f"{_deed(action)}: {action.reason}")


def _deed(action: AnyAction) -> str:
    held = " (held)" if action.held else ""
    if isinstance(action, SetPowerLevel):
        return f"{action.type} {action.was} → {action.level}{held}"
    is_told = action.target and (isinstance(action, InviteAgent) or not action.target.startswith("@"))
    target = f" {action.target}" if is_told else ""
    return f"{action.type}{target}{held}"


def _person(person: PersonAnswer) -> Iterator[str]:
    locked = "; the account is locked" if person.locked else ""
    yield f"{person.mxid} {_sums_up(person)}{locked}"
    for user in person.users:
        yield _labelled("user", f"{user.id}, {'active' if user.active else 'disabled'} in the directory")
    for seen in person.seen:
        gone = f", gone since {moment(seen.gone_since)}" if seen.gone_since else ""
        yield _labelled("seen", f"{seen.id}, since {moment(seen.first_seen)}{gone}")
    if not person.users and person.kind is PersonKind.LOCAL:
        yield _labelled("user", "none in the directory")
    if person.has_account is not None or person.locked is not None:
        yield _labelled("account", _account(person))
    if person.queued is not None:
        yield from (_labelled("queue", text) for text in _in_queue(person.queued, erases=person.erases))
    if person.would_be_locked:
        text = "left the directory: would be locked with user_provisioner.deprovisioning.enabled"
        yield _labelled("leaving", text)
    for group in person.groups:
        yield _labelled("group", group)
    yield from _next(person.next)
    yield from _problems(person.problems)


def _account(person: PersonAnswer) -> str:
    if not person.has_account and person.locked is None:
        return "none yet, or deactivated"
    return "yes, locked" if person.locked else "yes"


def _in_queue(queued: Queued, *, erases: bool) -> Iterator[str]:
    since = f"since {moment(queued.queued_at)}, {queued.reason}"
    if queued.restored_by is not None or queued.held_by is not None:
        yield since
    elif not erases:
        yield f"{since}; nobody is erased without user_provisioner.deprovisioning.enabled"
    else:
        yield f"{since}; erased from {moment(queued.due_at)} on, if the directory, read after that, says so"
    if not queued.ours:
        yield "locked by somebody else before: never unlocked by us"
    if queued.restored_by is not None:
        yield f"restored by {queued.restored_by}: neither locked nor erased"
    if queued.held_by is not None:
        yield f"held by {queued.held_by}: not erased before they let go"
    if queued.erase_by is not None and erases:
        yield f"to be erased at once, as {queued.erase_by} said"
    if queued.found_due_at is not None:
        yield f"found due at {moment(queued.found_due_at)} by a clock in doubt: to be read a second time"


def _sums_up(person: PersonAnswer) -> str:
    if person.kind is PersonKind.BOT:
        return "is the bot itself, and never touched"
    if person.kind is PersonKind.FOREIGN:
        return f"belongs to another server and is never touched; in {_rooms(person.surplus)}"
    more = f", and in {_rooms(person.surplus)} without a right to be" if person.surplus else ""
    if not person.entitled:
        return f"has no right to be in any space or room{more}"
    return f"is in {person.inside} of {_rooms(person.entitled)} of theirs{more}"


def _rooms(count: int) -> str:
    return f"{count} space or room" if count == 1 else f"{count} spaces and rooms"


def _room(room: RoomAnswer) -> Iterator[str]:
    what = "space" if room.is_space else "room"
    name = f"{room.name} ({room.named})" if room.name not in {room.key, room.named} else room.named
    numbers = f"{room.entitled} entitled, {room.joined} in, {room.invited} invited"
    yield f"{name} is a {what}, {room.status}: {numbers}"
    if room.room_id:
        yield _labelled("id", room.room_id)
    if room.space:
        yield _labelled("space", room.space)
    for group, level, count in room.groups:
        yield _labelled("group", f"{group}, people: {count}{f', level {level}' if level else ''}")
    if room.subspaces:
        yield _labelled("subspaces", ", ".join(room.subspaces))
    for label, count, text in (
        ("missing", room.missing, "entitled, and neither in nor invited"),
        ("surplus", room.surplus, "in or invited, and not entitled"),
        ("foreign", room.foreign, "of other servers, never touched"),
    ):
        if count:
            yield _labelled(label, f"{count} {text}")
    if room.last is not None:
        yield _labelled("last", _happened(room.last))
    yield from _next(room.next)
    yield from _problems(room.problems)


def _problems(problems: Iterable[Problem]) -> Iterator[str]:
    for problem in dict.fromkeys(problems):
        yield _labelled(problem.severity, problem.message)


def _table(named: Iterable[tuple[str, Standing]]) -> Iterator[str]:
    rows = [(name, standing.state, _level(standing), _rest(standing)) for name, standing in named]
    if not rows:
        return
    yield ""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False) if width]
        yield "  ".join([*cells, row[3]])


def _rest(standing: Standing) -> str:
    """Why, since when, what stands against it and what comes next, on one line."""
    since = f" since {moment(standing.since)}" if standing.since else ""
    parts = [f"{standing.reason}{since}", *(obstacle.text for obstacle in standing.against)]
    return "; ".join(parts) + "".join(f"; next: {_deed(action)}" for action in standing.next)


# -- JSON ------------------------------------------------------------------------------------------------


def to_json(found: Explanation) -> dict[str, object]:
    """JSON values, in the order in which they are printed."""
    return {
        "format_version": FORMAT_VERSION,
        "recorded": found.is_recorded,
        "person": _person_json(found.person) if found.person else None,
        "room": _room_json(found.room) if found.room else None,
        "standings": [_standing_json(standing) for standing in found.standings],
        "left_out": found.left_out,
    }


def _time(at: datetime | None) -> str | None:
    return moment(at) if at else None


def _person_json(person: PersonAnswer) -> dict[str, object]:
    return {
        "mxid": person.mxid,
        "kind": person.kind,
        "users": [{"id": user.id, "active": user.active} for user in person.users],
        "seen": [
            {"id": seen.id, "first_seen": _time(seen.first_seen), "gone_since": _time(seen.gone_since)}
            for seen in person.seen
        ],
        "account": person.has_account,
        "locked": person.locked,
        "queue": _queued_json(person.queued),
        "would_be_locked": person.would_be_locked,
        "next": [_action_json(action) for action in person.next],
        "entitled": person.entitled,
        "inside": person.inside,
        "surplus": person.surplus,
        "groups": list(person.groups),
        "problems": _problems_json(person.problems),
    }


def _queued_json(queued: Queued | None) -> dict[str, object] | None:
    if queued is None:
        return None
    return {
        "since": _time(queued.queued_at),
        "due": _time(queued.due_at),
        "reason": queued.reason,
        "ours": queued.ours,
        "held_by": queued.held_by,
        "erase_by": queued.erase_by,
        "restored_by": queued.restored_by,
    }


def _room_json(room: RoomAnswer) -> dict[str, object]:
    return {
        "room": room.key,
        "name": room.name,
        "room_id": room.room_id,
        "is_space": room.is_space,
        "space": room.space,
        "status": room.status,
        "entitled": room.entitled,
        "joined": room.joined,
        "invited": room.invited,
        "foreign": room.foreign,
        "missing": room.missing,
        "surplus": room.surplus,
        "groups": [{"group": group, "level": level, "people": count} for group, level, count in room.groups],
        "subspaces": list(room.subspaces),
        "last": _happened_json(room.last),
        "next": [_action_json(action) for action in room.next],
        "problems": _problems_json(room.problems),
    }


def _standing_json(standing: Standing) -> dict[str, object]:
    return {
        "person": standing.person,
        "room": standing.room,
        "membership": standing.membership,
        "left_at": _time(standing.left_at),
        "entitled": standing.entitled,
        "reason": standing.reason,
        "through": [{"space": way.space, "group": way.group, "level": way.level} for way in standing.through],
        "since": _time(standing.since),
        "level": standing.level,
        "above_all": standing.above_all,
        "wanted_level": standing.wanted_level,
        "level_reason": standing.level_reason,
        "last": _happened_json(standing.last),
        "against": [
            {"kind": obstacle.kind, "message": obstacle.text, "until": _time(obstacle.until)}
            for obstacle in standing.against
        ],
        "next": [_action_json(action) for action in standing.next],
    }


def _happened_json(last: Happened | None) -> dict[str, object] | None:
    if last is None:
        return None
    return {
        "type": last.type,
        "status": last.status,
        "reason": last.reason,
        "message": last.message,
        "at": moment(last.at),
        "cycle": last.cycle,
        "digest": last.digest,
    }


def _action_json(action: AnyAction) -> dict[str, object]:
    return {
        "type": action.type,
        "target": action.target,
        "reason": action.reason,
        "held": action.held,
        "details": dict(action.details),
    }


def _problems_json(problems: Iterable[Problem]) -> list[dict[str, object]]:
    return [
        {"severity": problem.severity, "subject": problem.subject, "message": problem.message}
        for problem in problems
    ]
