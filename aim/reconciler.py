"""The reconciler: gather, decide, act. One cycle, whoever asks for it, over everything or a few rooms.

`Observer` gathers the world and makes the plan; it is built from readers only, so that no reading command can
change anything. `Reconciler` adds the recorder and the executor, and carries plans out. Nothing here knows a
bridge, a database or Matrix: they come in through ports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from aim.config.root import Config
from aim.desired.adopting import wanted_rooms
from aim.desired.desire import desire
from aim.desired.identity import Conflict, conflicts
from aim.desired.leaving import asked_about
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import PlanError, SourceInvalid
from aim.herald import Herald
from aim.ledger import Ledger
from aim.planner.actions import EraseAccount
from aim.planner.document import digest, to_document, to_text
from aim.planner.memory import Memory, applied, remember
from aim.planner.plan import Plan, make_plan
from aim.planner.world import Limit, Limits, World
from aim.ports import (
    AccountReader,
    Announcer,
    Executor,
    HomeserverReader,
    Outcome,
    OutcomeStatus,
    RecordedReader,
    Recorder,
    Source,
)
from aim.world.recorded import Recorded, Seen
from aim.world.rooms import Observed

PATIENCE = timedelta(minutes=1)
"""How long a person may take to agree before the world is looked at again."""

Clock = Callable[[], datetime]
"""Gives the time in UTC."""


@dataclass(frozen=True, slots=True)
class Senses:
    """What looking at the world takes: readers, and nothing that could write."""

    config: Config
    source: Source
    homeserver: HomeserverReader
    recorded: RecordedReader
    now: Clock
    roster: Roster = field(default_factory=Roster)
    """Whoever gives sets of people numbers them by this one."""
    accounts: AccountReader | None = None
    """None where the configuration asks for nothing of accounts."""


_LOOK = (
    "nothing is done because of it; look at the source. If everybody has really left, remove the spaces from "
    "the configuration"
)
_START_ANEW = (
    "nothing is done until somebody was pushed: let the client push everything from the beginning. Another "
    "source.client.id than before begins with nobody"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A complete directory, and from when it is."""

    directory: Directory
    at: datetime
    """When reading it began: what changed later is not in it. UTC."""


class Observer:
    """Gathers the world and makes the plan."""

    def __init__(self, senses: Senses) -> None:
        self._senses = senses
        self._roster = senses.roster
        self._people = _People()

    async def directory(self, recorded: Recorded | None = None) -> Directory:
        """The complete directory. Raises SourceError, also if it is empty where it was not empty before."""
        return (await self.read(recorded)).directory

    async def read(self, recorded: Recorded | None = None) -> Reading:
        """The complete directory, and the time. Raises SourceError as `directory` does."""
        at = self._senses.now()
        directory = await self._senses.source.read(self._roster)
        if recorded is not None and not directory.users:
            known = sum(seen.gone_since is None for seen in recorded.seen.values())
            if known:
                raise SourceInvalid(
                    f"the directory is empty, and {known} users were known before",
                    _START_ANEW if directory.filling else _LOOK,
                )
        return Reading(directory, at)

    def localparts(self, directory: Directory) -> Sequence[str]:
        """Of everyone in that directory, sorted; worked out once."""
        return self._people.localparts(directory)

    async def recorded(self) -> Recorded:
        """What is remembered. Raises StoreError."""
        return await self._senses.recorded.load(self._roster, self._senses.now())

    async def world(self, reading: Reading | None = None) -> World:
        """Everything a plan depends on; the directory is read, unless it is given, as by the daemon, whose
        cycles run side by side.

        Raises SourceError, HomeserverError, StoreError.
        """
        recorded, is_shared = await self.recorded(), reading is not None
        if reading is None:
            reading = await self.read(recorded)
        directory = reading.directory
        observed = await self._senses.homeserver.observe(
            self._roster,
            self._people.localparts(directory),
            {key: room.room_id for key, room in recorded.rooms.items()},
            wanted_rooms(self._senses.config, directory),
        )
        observed = await self._with_accounts(observed, directory, recorded)
        if is_shared:
            # Whatever others did while we looked has to count against the guards.
            recorded = await self.recorded()
        _refuse_empty_in_recovery(directory, recorded, observed)
        config = self._senses.config
        return World(
            desired=desire(
                config, directory, observed, recorded, self._people.conflicts(directory, recorded.seen)
            ),
            observed=observed,
            recorded=recorded,
            now=self._senses.now(),
            directory_at=reading.at,
            allowed_users=config.provisioner.allowed_users,
            limits=limits_of(config),
            joins=config.provisioner.membership == "join",
        )

    async def _with_accounts(self, observed: Observed, directory: Directory, recorded: Recorded) -> Observed:
        """What is known of everybody's account, where that is asked for."""
        reader = self._senses.accounts
        if reader is None:
            return observed
        wanted = self._people.emails(directory, recorded)
        known = await reader.observe(wanted)
        new = observed.accounts - self._roster.people(known.accounts)
        if new and not known.refused:
            reader.appeared(self._roster.localparts(new))
            known = await reader.observe(wanted)
        return replace(observed, known_accounts=known)

    async def plan(self) -> Plan:
        """What a cycle would do now."""
        return make_plan(await self.world())


class _People:
    """What takes a look at everybody, kept as long as the directory and those seen before are the same: an
    event about one person must not cost one about all."""

    def __init__(self) -> None:
        self._directory: Directory | None = None
        self._seen: Mapping[str, Seen] | None = None
        self._localparts: Sequence[str] = ()
        self._conflicts: tuple[Conflict, ...] = ()
        self._emails: tuple[Directory, Mapping[str, Seen], Mapping[str, Collection[str]]] | None = None
        self.known = False
        """Nothing about anybody was left to be recorded, when that was looked at."""

    def localparts(self, directory: Directory) -> Sequence[str]:
        """Of everyone, sorted."""
        if directory is not self._directory:
            self._directory, self._seen, self.known = directory, None, False
            self._localparts = directory.roster.localparts(directory.everyone)
        return self._localparts

    def conflicts(self, directory: Directory, seen: Mapping[str, Seen]) -> tuple[Conflict, ...]:
        """Between the directory and whom we have seen."""
        if directory is not self._directory or seen is not self._seen:
            self.localparts(directory)
            self._seen, self.known = seen, False
            self._conflicts = conflicts(directory.users, seen)
        return self._conflicts

    def emails(self, directory: Directory, recorded: Recorded) -> Mapping[str, Collection[str]]:
        """Whose accounts have to be known, with the addresses that the directory gives them."""
        seen = recorded.seen
        if self._emails is None or self._emails[0] is not directory or self._emails[1] is not seen:
            found = asked_about(directory, recorded)
            self._emails = directory, seen, found
        return self._emails[2]


def _refuse_empty_in_recovery(directory: Directory, recorded: Recorded, observed: Observed) -> None:
    if directory.filling:
        # Nothing is pushed yet: an empty beginning, in which nobody is removed without approval.
        return
    if not directory.users and not recorded.seen and observed.has_rooms:
        raise SourceInvalid(
            "the directory is empty, but there are spaces made from it",
            "nothing is done because of it; look at the source",
        )


def limits_of(config: Config) -> Mapping[str, Limits]:
    """The guards' limits as the planner takes them."""
    guards = config.provisioner.guards
    return {
        kind: Limits(
            per_space=Limit(guard.per_space.at_least, guard.per_space.percent),
            organisation=Limit(guard.organisation.at_least, guard.organisation.percent),
        )
        for kind, guard in (
            ("kicks", guards.kicks),
            ("demotions", guards.demotions),
            ("locks", guards.locks),
            ("erasures", guards.erasures),
            ("releases", guards.releases),
            ("abandoned_spaces", guards.abandoned_spaces),
        )
    }


@dataclass(frozen=True, slots=True)
class Cycle:
    """What one cycle planned, and what became of it."""

    plan: Plan
    """What this cycle was to do: the whole world's plan, restricted to the rooms it had for itself."""
    outcomes: tuple[Outcome, ...]
    agreed: bool = True
    """False: the plan was shown and declined."""

    @property
    def failed(self) -> tuple[Outcome, ...]:
        """Outcomes that are neither done nor held by a guard."""
        return tuple(
            outcome
            for outcome in self.outcomes
            if outcome.status in {OutcomeStatus.FAILED, OutcomeStatus.SKIPPED}
        )


async def nobody(_: str) -> None:
    """Nobody wants to know."""


Agreement = Callable[[Plan], Awaitable[bool]]
"""Shows a plan to whoever decides; true if it may be carried out. May raise PlanError."""


async def _always(_: Plan) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Hooks:
    """What who asks for a cycle wants to know, and to have a say in."""

    agree: Agreement = _always
    progress: Callable[[Outcome], None] = lambda _: None
    """Told of each outcome at once."""
    claim: Callable[[Plan], Plan] = lambda plan: plan
    """Restricts the plan to what nobody else is working on. Called before anything is done."""


NO_HOOKS = Hooks()


class Reconciler(Observer):
    """Carries cycles out. Exists only where the writer's lock is held."""

    def __init__(
        self,
        senses: Senses,
        recorder: Recorder,
        executor: Executor,
        announcer: Announcer | None = None,
        forgotten: Callable[[str], Awaitable[None]] = nobody,
    ) -> None:
        """`announcer` tells people of what concerns them; None: nobody is told. `forgotten` is called with
        the localpart of whoever was erased, before the recorder forgets them."""
        super().__init__(senses)
        self._recorder = recorder
        self._executor = executor
        self._herald = Herald(announcer, senses.accounts)
        self._forgotten = forgotten
        self._deciding = asyncio.Lock()
        """Cycles decide one after the other, and act side by side."""

    async def cycle(
        self, stopping: asyncio.Event, hooks: Hooks = NO_HOOKS, reading: Reading | None = None
    ) -> Cycle:
        """Gather, decide, and, if agreed, act. The directory is read, unless it is given.

        Raises AimError if any of it can't be done at all.
        """
        async with self._deciding:
            world = await self.world(reading)
            whole = make_plan(world)
            if not await hooks.agree(whole):
                return Cycle(whole, (), agreed=False)
            await self._still_true(world, whole)
            memory = remember(world, whole, people_known=self._people.known)
            self._people.known = not memory.seen
            plan = hooks.claim(whole)
            # Before it is recorded that it is held: being killed in between must not hide it.
            await self._herald.tell(whole, memory, world)
            if not plan.due and not memory:
                return Cycle(plan, ())
            if world.recovering and world.recorded.recovery_since is None:
                # First of all: a database that holds something, but not this, would look like a sound one.
                await self._recorder.record_recovery(world.now)
            cycle = await self._begin(plan, memory)
            await self._record(memory, world)
        if cycle is None:
            return Cycle(plan, ())
        outcomes = await self._act(cycle, plan, world, stopping, hooks.progress)
        done = [outcome.action for outcome in outcomes if outcome.status is OutcomeStatus.DONE]
        for room in applied(world, whole, memory, done):
            # What later changes of the configuration, or of people, are compared with.
            await self._recorder.record_room(room, self._senses.now())
        return Cycle(plan, outcomes)

    async def _act(
        self,
        cycle: int,
        plan: Plan,
        world: World,
        stopping: asyncio.Event,
        progress: Callable[[Outcome], None],
    ) -> tuple[Outcome, ...]:
        """Carries the plan out, and records what became of it. Raises StoreError."""
        ledger = Ledger(self._recorder, cycle, plan, self._senses.now, progress)
        known = world.observed.known_accounts
        async with ledger.kept():
            outcomes = await self._executor.execute(
                plan,
                world.desired,
                {key: room.room_id for key, room in world.observed.rooms.items()},
                stopping,
                ledger.note,
                known.accounts if known else None,
            )
        await self._recorder.end_cycle(cycle, outcomes, self._senses.now())
        # Only now: the cycle's own record names them.
        for outcome in outcomes:
            if isinstance(outcome.action, EraseAccount) and outcome.status is OutcomeStatus.DONE:
                await self._forget(outcome.action.user_id, outcome.action.person, world)
        return tuple(outcomes)

    async def _forget(self, user_id: str, mxid: str, world: World) -> None:
        """All that we remember of them. Raises StoreError."""
        localpart = world.observed.localpart(mxid)
        known = world.observed.known_accounts
        account = known.accounts.get(localpart) if known else None
        await self._forgotten(localpart)
        # The account has no addresses any more; those that it had are to be forgotten too.
        await self._recorder.forget_person(user_id, mxid, (account and account.emails) or ())

    async def _still_true(self, world: World, plan: Plan) -> None:
        """Raises PlanError if the answer took long and a cycle would do something else by now."""
        if self._senses.now() - world.now > PATIENCE and digest(await self.plan()) != digest(plan):
            raise PlanError(
                "the world has moved on while the plan was looked at",
                "look at the new plan: run `aim apply` again",
            )

    async def decisions(self) -> int:
        """Grows with whatever a person decides beside us. Raises StoreError."""
        return await self._recorder.decisions()

    async def fell_due(self, since: datetime) -> bool:
        """Whether somebody's time on the deprovisioning queue ended since then. Raises StoreError."""
        queue, now = (await self.recorded()).queue, self._senses.now()
        return any(
            since < queued.due_at <= now
            for queued in queue.values()
            if queued.held_by is None and queued.restored_by is None
        )

    async def settle(self, busy: frozenset[str] = frozenset()) -> None:
        """Waits for rooms that were being made when somebody was killed; `busy` ones are being made just now.

        Raises HomeserverError, StoreError.
        """
        intents = await self._recorder.open_intents()
        left = {key: at for key, at in intents.items() if key not in busy}
        if left:
            recorded = await self.recorded()
            await self._executor.settle(left, [room.room_id for room in recorded.rooms.values()])
            await self._recorder.close_intents(left.keys())

    async def _begin(self, plan: Plan, memory: Memory) -> int | None:
        """Records the cycle before anything of it is done; remembering alone needs no record."""
        if not plan.due and memory.held is None:
            return None
        now = self._senses.now()
        document = to_document(plan, now)
        return await self._recorder.begin_cycle(to_text(document), str(document["digest"]), now)

    async def _record(self, memory: Memory, world: World) -> None:
        recorder, now = self._recorder, self._senses.now()
        for room in memory.rooms:
            await recorder.record_room(room, now)
        await self._record_people(memory, world.desired.directory.source, now)
        await self._record_queue(memory)
        for user_id, mxid in memory.forget:
            await self._forget(user_id, mxid, world)
        if memory.held is not None:
            await recorder.record_held(memory.held)
        if world.recovering and memory.recovery_since is None:
            await recorder.record_recovery(None)

    async def _record_people(self, memory: Memory, source: str, now: datetime) -> None:
        recorder = self._recorder
        if memory.seen:
            await recorder.record_seen(memory.seen, (), source)
        if memory.entitled:
            await recorder.record_entitled(memory.entitled, now)
        if memory.lapsed or memory.regained:
            await recorder.record_lapsed(memory.lapsed, memory.regained, now)
        if memory.returned:
            await recorder.forget_caused(memory.returned)

    async def _record_queue(self, memory: Memory) -> None:
        recorder = self._recorder
        # In this order: an entry may go over to another id.
        if memory.enqueue:
            await recorder.enqueue(memory.enqueue)
        if memory.dequeue:
            await recorder.dequeue(memory.dequeue)
        if memory.clock is not None:
            await recorder.record_clock(memory.clock)
