"""The two measurements: on a real Synapse, and on a stand-in, which holds at once what takes that hours."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aim.demo.homeserver import free_port
from bench.live.clocks import Delivery, Timed
from bench.live.correction import CALM, KINDS, MOMENT, Corrections, measure, spaces_of
from bench.live.current import CURRENT, Asked, idle, restarted
from bench.live.cycle import Decision, decide
from bench.live.organisation import Organisation, localpart
from bench.live.provisioning import Provisioning, first_provisioning, prepared, run_bare
from bench.live.stage import PATIENCE, Daemon, Place, Stage, open_stage
from bench.live.standin import StandIn
from bench.live.synapses import place_of, running_synapse
from bench.shape import Size
from tests.servers.postgres import Postgres, running_postgres
from tests.servers.proxy import Request
from tests.servers.synapse import Homeserver, make_appservice


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is done."""

    real: Organisation
    rounds: int
    """Of first provisioning."""
    turns: int
    """Of each kind of correction."""
    large: Organisation
    decision: Size
    cycles: int = 3


FULL = Amount(Organisation(300, 30), 4, 30, Organisation(10_000, 500), Size(10_000, 1_500, 500))
SMALL = Amount(Organisation(24, 5), 1, 2, Organisation(40, 8), Size(1_000, 100, 20), cycles=1)


@dataclass(frozen=True, slots=True)
class Real:
    """What was found on a real Synapse."""

    provisioning: Provisioning
    idle: Asked
    restarted: Asked
    corrections: Sequence[Corrections]


@dataclass(frozen=True, slots=True)
class Reaction:
    """From an event that is handed to the homeserver to its correction, and aim's processor time for it."""

    seconds: float
    processor: float


@dataclass(frozen=True, slots=True)
class Large:
    """What was found on the stand-in."""

    organisation: Organisation
    memberships: int
    idle: Asked
    restarted: Asked
    reactions: Sequence[Reaction]
    decision: Decision


# -- a real Synapse ------------------------------------------------------------------------------------------


async def measure_real(amount: Amount) -> Real:
    """Takes three minutes for each round of the full amount, and four for the rest."""
    async with running_postgres() as postgres, running_synapse(2 * amount.rounds) as homeservers:
        people = [localpart(person) for person in range(amount.real.users)]
        await homeservers[0].register(*people)
        return await _rounds(amount, postgres, homeservers)


async def _rounds(amount: Amount, postgres: Postgres, homeservers: Sequence[Homeserver]) -> Real:
    made, bare = [], []
    recorded: tuple[Sequence[Timed], Place] | None = None
    for number in range(amount.rounds):
        ours, theirs = homeservers[2 * number : 2 * number + 2]
        # Whoever comes second meets a larger database: each second round the loop goes first.
        is_loop_first = recorded is not None and number % 2 == 1
        if recorded is not None and is_loop_first:
            bare.append(await _bare(*recorded, theirs))
        async with open_stage(place_of(ours), amount.real, postgres) as stage:
            async with stage.daemon() as daemon:
                found, timed = await first_provisioning(stage, daemon)
                made.append(found)
            recorded = timed, stage.place
            # The daemon has stopped: it would share the homeserver.
            if not is_loop_first:
                bare.append(await _bare(*recorded, theirs))
            if number == amount.rounds - 1:
                provisioning = Provisioning(amount.real, made, bare)
                return await _afterwards(amount, provisioning, stage, ours, theirs)
    raise AssertionError("there is no round")


async def _bare(timed: Sequence[Timed], before: Place, theirs: Homeserver) -> float:
    place = place_of(theirs)
    return await run_bare(prepared(timed, before, place), place)


async def _afterwards(
    amount: Amount, provisioning: Provisioning, stage: Stage, ours: Homeserver, theirs: Homeserver
) -> Real:
    async with stage.daemon() as daemon:
        await _settled(stage, daemon)
        nothing = await idle(stage, daemon, amount.cycles)
        corrections = await _corrections(amount, stage, ours, theirs)
        await stage.clock.calm(CALM, PATIENCE)
    return Real(provisioning, nothing, await restarted(stage), corrections)


async def _settled(stage: Stage, daemon: Daemon) -> None:
    await daemon.says(CURRENT)
    await daemon.says("cycle done")
    await stage.clock.calm(CALM, PATIENCE)


async def _corrections(
    amount: Amount, stage: Stage, ours: Homeserver, theirs: Homeserver
) -> list[Corrections]:
    port = theirs.appservice.port
    assert port is not None, "nothing would be delivered"
    async with Delivery(port) as delivery:
        watched = await spaces_of(amount.real, ours, amount.turns)
        alone = await spaces_of(amount.real, theirs, amount.turns)
        return [await measure(kind, stage, watched, alone, delivery, amount.turns) for kind in KINDS]


# -- the stand-in --------------------------------------------------------------------------------------------


async def measure_large(amount: Amount) -> Large:
    """Takes two minutes for the full amount."""
    organisation, appservice = amount.large, make_appservice(port=free_port())
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(running_postgres())
        homeserver = await stack.enter_async_context(StandIn(appservice, []))
        place = Place(homeserver.base_url, homeserver.server_name, appservice)
        async with open_stage(place, organisation, postgres) as stage:
            # aim makes the rooms itself, so that they are as it wants them.
            async with stage.daemon() as daemon:
                await first_provisioning(stage, daemon)
                await homeserver.all_delivered()
            memberships = homeserver.fill(organisation.members(), organisation.leads())
        stage = await stack.enter_async_context(open_stage(place, organisation, postgres))
        found = await _large(amount, stage, homeserver, memberships)
        if homeserver.faults:
            raise RuntimeError(f"the homeserver was sent nonsense: {homeserver.faults[0]}")
        return found


async def _large(amount: Amount, stage: Stage, homeserver: StandIn, memberships: int) -> Large:
    async with stage.daemon() as daemon:
        await _settled(stage, daemon)
        nothing = await idle(stage, daemon, amount.cycles)
        turns = range(min(amount.turns, amount.large.teams))
        reactions = [await _reaction(stage, daemon, homeserver, turn) for turn in turns]
        await stage.clock.calm(CALM, PATIENCE)
    decision = decide(amount.decision, 5)
    return Large(amount.large, memberships, nothing, await restarted(stage), reactions, decision)


async def _reaction(stage: Stage, daemon: Daemon, homeserver: StandIn, turn: int) -> Reaction:
    """The lead of a team invites somebody of the next one."""
    await stage.clock.calm(CALM, PATIENCE)
    stage.clock.forget()
    room_id, processor = homeserver.rooms_by_key()[f"team-{turn}"], daemon.processor_seconds
    teams = stage.organisation.teams
    person = localpart((turn + 1) % teams + teams)

    def is_kick(request: Request) -> bool:
        return request.path.endswith(f"/rooms/{room_id}/kick")

    begun = time.perf_counter()
    homeserver.invite(room_id, homeserver.mxid(localpart(turn)), homeserver.mxid(person))
    done = await stage.clock.accepted(is_kick, MOMENT)
    await stage.clock.calm(CALM, PATIENCE)
    return Reaction(done.answered - begun, daemon.processor_seconds - processor)
