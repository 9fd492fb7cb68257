"""Ports for the tests of executor and reconciler: stateful, watchful, and able to fail or be killed.

All fakes of one test share a `Line`: every call on any of them goes through it, in order. A test can let a
call fail, or kill the process before or after one takes effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from aim.desired.queueing import merged
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import HomeserverUnavailable
from aim.ports import NewRoom, Outcome, OutcomeStatus
from aim.world.recorded import Approval, Done, Queued, Recorded, RecordedRoom, Seen
from aim.world.rooms import Observed
from tests.unit.model import ModelHomeserver
from tests.unit.worlds import NOW, Scene


class Killed(BaseException):
    """SIGKILL: no code of the program sees it."""


class Call(NamedTuple):
    """One call of a port."""

    name: str
    arguments: tuple[object, ...]


@dataclass
class Clock:
    """Time that passes only when somebody sleeps, or the test says so."""

    time: datetime = NOW

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        await asyncio.sleep(0)


Failure = Callable[[Call], BaseException | None]
"""Says how a call fails, if it does."""


@dataclass
class Line:
    """What was called, and what is to go wrong."""

    calls: list[Call] = field(default_factory=list)
    fail: Failure = lambda _: None
    lose: Failure = lambda _: None
    """As `fail`, but after the call took effect: its answer is lost."""
    kill_before: int | None = None
    """The number of the call, from 0, that never happens."""
    kill_after: int | None = None
    """The number of the call whose answer never comes back."""
    killed: bool = False

    async def take(self, name: str, *arguments: object) -> Call:
        """A call begins."""
        await asyncio.sleep(0)
        call = Call(name, arguments)
        if self.killed or len(self.calls) == self.kill_before:
            self.killed = True
            raise Killed
        self.calls.append(call)
        if error := self.fail(call):
            raise error
        return call

    async def give(self, call: Call) -> None:
        """A call took effect."""
        if len(self.calls) - 1 == self.kill_after and call is self.calls[-1]:
            self.killed = True
        if self.killed:
            raise Killed
        await asyncio.sleep(0)
        if error := self.lose(call):
            raise error

    def of(self, *names: str) -> list[Call]:
        """The calls with these names, in order."""
        return [call for call in self.calls if call.name in names]

    def names(self) -> list[str]:
        return [call.name for call in self.calls]


def lost_answer(name: str, times: int = 1) -> Failure:
    """The answers of the first so many calls of that name are lost on the way."""
    left = [times]

    def fail(call: Call) -> BaseException | None:
        if call.name != name or not left[0]:
            return None
        left[0] -= 1
        return HomeserverUnavailable("the connection was lost", maybe_done=True)

    return fail


class FakeWriter:
    """HomeserverWriter over a model."""

    def __init__(self, homeserver: ModelHomeserver, line: Line) -> None:
        self.homeserver = homeserver
        self._line = line

    async def create_room(self, room: NewRoom) -> str:
        call = await self._line.take("create_room", room)
        room_id = self.homeserver.create_room(room)
        await self._line.give(call)
        return room_id

    async def find_by_marker(self, key: str, ignoring: Collection[str]) -> str | None:
        call = await self._line.take("find_by_marker", key)
        found = self.homeserver.find_by_marker(key, ignoring)
        await self._line.give(call)
        return found

    async def invite(
        self, room_id: str, mxid: str, reason: str | None = None, acting_as: str | None = None
    ) -> None:
        acting = () if acting_as is None else (acting_as,)
        call = await self._line.take("invite", room_id, mxid, *acting)
        self.homeserver.invite(room_id, mxid, acting_as)
        await self._line.give(call)

    async def kick(self, room_id: str, mxid: str, reason: str) -> None:
        assert reason, "who is removed is told why"
        call = await self._line.take("kick", room_id, mxid)
        self.homeserver.kick(room_id, mxid)
        await self._line.give(call)

    async def join(self, room_id: str, mxid: str) -> None:
        call = await self._line.take("join", room_id, mxid)
        self.homeserver.join_as(room_id, mxid)
        await self._line.give(call)

    async def leave(self, room_id: str, mxid: str | None = None, reason: str | None = None) -> None:
        call = await self._line.take("leave", room_id, mxid)
        if mxid is None:
            self.homeserver.leave(room_id)
        else:
            assert reason, "who is removed is told why"
            self.homeserver.leave_as(room_id, mxid, int(NOW.timestamp() * 1000))
        await self._line.give(call)

    async def lower_own_level(self, room_id: str, mxid: str, level: int) -> None:
        call = await self._line.take("lower_own_level", room_id, mxid, level)
        self.homeserver.lower_own_level(room_id, mxid, level)
        await self._line.give(call)

    async def take_control(self, room_id: str, acting_as: str | None, *, invites: bool) -> None:
        call = await self._line.take("take_control", room_id, acting_as, invites)
        self.homeserver.take_control(room_id, acting_as, invites=invites)
        await self._line.give(call)

    async def invite_agent(self, room_id: str, mxid: str) -> None:
        raise AssertionError("no room is shared with other servers")

    async def accept(self, room_id: str, inviter: str) -> None:
        raise AssertionError("nobody of another server asks the bot in")

    async def put_state(
        self,
        room_id: str,
        event_type: str,
        state_key: str,
        content: Mapping[str, object],
        acting_as: str | None = None,
    ) -> None:
        acting = () if acting_as is None else (acting_as,)
        call = await self._line.take("put_state", room_id, event_type, state_key, content, *acting)
        self.homeserver.put_state(room_id, event_type, state_key, content, acting_as)
        await self._line.give(call)

    async def change_power_levels(
        self, room_id: str, base: Mapping[str, object] | None, levels: Mapping[str, int]
    ) -> None:
        call = await self._line.take("change_power_levels", room_id, base, dict(levels))
        assert base is not None or levels, "a write that changes nothing"
        self.homeserver.change_power_levels(room_id, base, levels)
        await self._line.give(call)


WRITES = (
    "create_room",
    "invite",
    "join",
    "kick",
    "leave",
    "lower_own_level",
    "put_state",
    "change_power_levels",
    "take_control",
)


class FakeRecorder:
    """Recorder over a Recorded: each call is one transaction."""

    def __init__(self, line: Line, recorded: Recorded | None = None) -> None:
        self._line = line
        self.recorded = recorded or Recorded()
        self.entitled: dict[str, set[str]] = {}
        self.lapsed: dict[str, set[str]] = {}
        self.regained: dict[str, dict[str, datetime]] = {}
        self.caused: dict[str, set[str]] = {}
        self.intents: dict[str, datetime] = {}
        self.cycles: list[tuple[str, str]] = []
        """(status, digest)."""
        self.plans: dict[str, str] = {}
        self.outcomes: list[Outcome] = []

    @classmethod
    def of(cls, scene: Scene, line: Line) -> FakeRecorder:
        """One that remembers what is recorded in the scene."""
        recorded, names = scene.recorded, scene.roster.localparts
        made = cls(line, replace(recorded, entitled={}, lapsed={}, regained={}, caused={}))
        made.entitled = {key: set(names(people)) for key, people in recorded.entitled.items()}
        made.lapsed = {key: set(names(people)) for key, people in recorded.lapsed.items()}
        made.caused = {room_id: set(names(people)) for room_id, people in recorded.caused.items()}
        made.regained = {
            key: {scene.roster.localpart(person): at for person, at in people.items()}
            for key, people in recorded.regained.items()
        }
        return made

    async def load(self, roster: Roster, now: datetime) -> Recorded:
        await self._line.take("load")
        entitled, lapsed, caused = (
            {key: roster.people(sorted(names)) for key, names in sorted(known.items()) if names}
            for known in (self.entitled, self.lapsed, self.caused)
        )
        return replace(
            self.recorded,
            fresh=not (self.cycles or self.recorded.rooms or self.recorded.seen),
            entitled=entitled,
            lapsed=lapsed,
            regained={
                key: {roster.number(name): at for name, at in people.items()}
                for key, people in self.regained.items()
                if people
            },
            caused=caused,
            done=tuple(done for done in self.recorded.done if now - done.at < timedelta(hours=1)),
            approvals={key: given for key, given in self.recorded.approvals.items() if given.until > now},
        )

    async def plan_by_digest(self, digest: str) -> str | None:
        return self.plans.get(digest)

    async def open_intents(self) -> Mapping[str, datetime]:
        await self._line.take("open_intents")
        return dict(self.intents)

    async def begin_cycle(self, plan_json: str, digest: str, now: datetime) -> int:
        call = await self._line.take("begin_cycle", digest)
        self.cycles.append(("running", digest))
        self.plans[digest] = plan_json
        await self._line.give(call)
        return len(self.cycles) - 1

    async def record_outcomes(self, cycle: int, outcomes: Mapping[int, Outcome], now: datetime) -> None:
        call = await self._line.take("record_outcomes", dict(outcomes))
        self._use_up(outcomes.values())
        await self._line.give(call)

    async def end_cycle(self, cycle: int, outcomes: Sequence[Outcome], now: datetime) -> None:
        call = await self._line.take("end_cycle")
        assert self.cycles[cycle][0] == "running"
        self.cycles[cycle] = ("done", self.cycles[cycle][1])
        self.outcomes = list(outcomes)
        self._use_up(outcomes)
        await self._line.give(call)

    def _use_up(self, outcomes: Iterable[Outcome]) -> None:
        done = {outcome.action.identity for outcome in outcomes if outcome.status is OutcomeStatus.DONE}
        left = {key: given for key, given in self.recorded.approvals.items() if key not in done}
        self.recorded = replace(self.recorded, approvals=left)

    async def intend_room(self, key: str, now: datetime) -> None:
        call = await self._line.take("intend_room", key)
        self.intents[key] = now
        await self._line.give(call)

    async def decisions(self) -> int:
        return len(self.recorded.approvals)

    async def database_clock(self) -> datetime:
        return datetime.now(UTC)

    async def close_intents(self, keys: Collection[str]) -> None:
        call = await self._line.take("close_intents", frozenset(keys))
        self.intents = {key: when for key, when in self.intents.items() if key not in keys}
        await self._line.give(call)

    async def record_room(self, room: RecordedRoom, now: datetime) -> None:
        call = await self._line.take("record_room", room)
        self.recorded = replace(self.recorded, rooms={**self.recorded.rooms, room.key: room})
        self.intents.pop(room.key, None)
        await self._line.give(call)

    async def forget_room(self, key: str) -> None:
        call = await self._line.take("forget_room", key)
        rooms = {known: room for known, room in self.recorded.rooms.items() if known != key}
        self.recorded = replace(self.recorded, rooms=rooms)
        await self._line.give(call)

    async def record_done(self, done: Done) -> None:
        call = await self._line.take("record_done", done)
        self.recorded = replace(self.recorded, done=(*self.recorded.done, done))
        await self._line.give(call)

    async def record_seen(self, seen: Sequence[Seen], forget: Collection[str], source: str) -> None:
        call = await self._line.take("record_seen", tuple(seen))
        known = {id_: one for id_, one in self.recorded.seen.items() if id_ not in forget}
        self.recorded = replace(self.recorded, seen={**known, **{one.id: one for one in seen}}, source=source)
        await self._line.give(call)

    async def record_entitled(self, new: Mapping[str, Collection[str]], now: datetime) -> None:
        call = await self._line.take("record_entitled", dict(new))
        for key, names in new.items():
            self.entitled.setdefault(key, set()).update(names)
        await self._line.give(call)

    async def record_lapsed(
        self, lapsed: Mapping[str, Collection[str]], regained: Mapping[str, Collection[str]], now: datetime
    ) -> None:
        call = await self._line.take("record_lapsed", dict(lapsed), dict(regained))
        for key, names in lapsed.items():
            assert set(names) <= self.entitled.get(key, set()), "entitlements are recorded first"
            self.lapsed.setdefault(key, set()).update(names)
            for name in names:
                self.regained.get(key, {}).pop(name, None)
        for key, names in regained.items():
            assert set(names) <= self.entitled.get(key, set()), "entitlements are recorded first"
            self.lapsed.setdefault(key, set()).difference_update(names)
            self.regained.setdefault(key, {}).update(dict.fromkeys(names, now))
        await self._line.give(call)

    async def record_caused(self, room_id: str, localpart: str) -> None:
        call = await self._line.take("record_caused", room_id, localpart)
        self.caused.setdefault(room_id, set()).add(localpart)
        await self._line.give(call)

    async def forget_caused(self, returned: Mapping[str, Collection[str]]) -> None:
        call = await self._line.take("forget_caused", dict(returned))
        for room_id, names in returned.items():
            self.caused.get(room_id, set()).difference_update(names)
        await self._line.give(call)

    async def record_held(self, identities: Collection[str]) -> None:
        call = await self._line.take("record_held", frozenset(identities))
        self.recorded = replace(self.recorded, held=frozenset(identities))
        await self._line.give(call)

    async def record_recovery(self, since: datetime | None) -> None:
        call = await self._line.take("record_recovery", since)
        self.recorded = replace(self.recorded, recovery_since=since)
        await self._line.give(call)

    async def enqueue(self, queued: Sequence[Queued]) -> None:
        call = await self._line.take("enqueue", tuple(queued))
        known = self.recorded.queue
        entries = {entry.user_id: merged(known.get(entry.user_id), entry) for entry in queued}
        self.recorded = replace(self.recorded, queue={**self.recorded.queue, **entries})
        await self._line.give(call)

    async def change_queued(self, user_id: str, change: Callable[[Queued | None], Queued]) -> Queued:
        call = await self._line.take("change_queued", user_id)
        entry = change(self.recorded.queue.get(user_id))
        self.recorded = replace(self.recorded, queue={**self.recorded.queue, user_id: entry})
        await self._line.give(call)
        return entry

    async def queued(self, user_id: str) -> Queued | None:
        await self._line.take("queued", user_id)
        return self.recorded.queue.get(user_id)

    async def waits(self, localpart: str) -> bool:
        await self._line.take("waits", localpart)
        return any(entry.localpart == localpart for entry in self.recorded.queue.values())

    async def dequeue(self, user_ids: Collection[str]) -> None:
        call = await self._line.take("dequeue", frozenset(user_ids))
        kept = {id_: entry for id_, entry in self.recorded.queue.items() if id_ not in user_ids}
        self.recorded = replace(self.recorded, queue=kept)
        await self._line.give(call)

    async def postpone_queue(self, until: datetime) -> None:
        call = await self._line.take("postpone_queue", until)
        later = {
            id_: replace(entry, due_at=max(entry.due_at, until)) for id_, entry in self.recorded.queue.items()
        }
        self.recorded = replace(self.recorded, queue=later)
        await self._line.give(call)

    async def record_clock(self, now: datetime) -> None:
        call = await self._line.take("record_clock", now)
        self.recorded = replace(self.recorded, clock=now)
        await self._line.give(call)

    async def forget_person(self, user_id: str, mxid: str, emails: Collection[str] = ()) -> None:
        call = await self._line.take("forget_person", user_id, mxid, tuple(emails))
        self.recorded = replace(
            self.recorded,
            seen={id_: seen for id_, seen in self.recorded.seen.items() if id_ != user_id},
            queue={id_: entry for id_, entry in self.recorded.queue.items() if id_ != user_id},
        )
        await self._line.give(call)

    async def approve(self, approvals: Sequence[Approval], digest: str, now: datetime) -> None:
        given = {approval.identity: approval for approval in approvals}
        self.recorded = replace(self.recorded, approvals={**self.recorded.approvals, **given})


RECORDS = (
    "begin_cycle",
    "close_intents",
    "end_cycle",
    "intend_room",
    "record_outcomes",
    "record_room",
    "forget_room",
    "record_done",
    "record_seen",
    "record_entitled",
    "record_lapsed",
    "record_caused",
    "forget_caused",
    "record_held",
    "record_recovery",
    "enqueue",
    "change_queued",
    "dequeue",
    "record_clock",
    "forget_person",
)


class FakeReader:
    """HomeserverReader over a model."""

    def __init__(self, homeserver: ModelHomeserver, line: Line) -> None:
        self.homeserver = homeserver
        self._line = line

    async def observe(
        self,
        roster: Roster,
        wanted: Collection[str],
        known: Mapping[str, str],
        rooms: Mapping[str, Sequence[str]] | None = None,
    ) -> Observed:
        await self._line.take("observe")
        observed = self.homeserver.observe(roster, known)
        return replace(observed, accounts=observed.accounts & roster.people(wanted))


class FakeSource:
    """A source that gives whatever `make` makes of a roster."""

    type = "ldif"

    def __init__(self, make: Callable[[Roster], Directory]) -> None:
        self.make = make

    async def read(self, roster: Roster) -> Directory:
        return self.make(roster)

    async def fingerprint(self) -> str:
        return "one"
