"""With a current mirror nothing is asked: cycles over everything, and a daemon that is started again.

Counted at the proxy. A cycle is brought about by a directory that was written anew and says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.live.clocks import Clock
from bench.live.requests import control_room, kinds
from bench.live.stage import Daemon, Stage

CURRENT = "the mirror is current"
MOST_IDLE, MOST_RESTARTED = 0, 9


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked in some time; the declared polls apart."""

    requests: Mapping[str, int]
    polls: int
    cycles: int

    @property
    def total(self) -> int:
        return sum(self.requests.values())


async def idle(stage: Stage, daemon: Daemon, cycles: int) -> Asked:
    """So many cycles over everything, one after the other, with nothing to do."""
    control = control_room(stage.clock.timed)
    stage.clock.forget()
    begun = await daemon.cycles()
    for number in range(cycles):
        stage.touch()
        await daemon.more_cycles_than(begun + number)
    return _asked(stage.clock, control, await daemon.cycles() - begun)


async def restarted(stage: Stage) -> Asked:
    """From the start of the daemon to the end of its first cycle, with a database that it left."""
    stage.clock.forget()
    async with stage.daemon() as daemon:
        await daemon.says(CURRENT)
        await daemon.says("cycle done")
        return _asked(stage.clock, control_room(stage.clock.timed), await daemon.cycles())


def _asked(clock: Clock, control: str | None, cycles: int) -> Asked:
    return Asked(kinds(clock.asked, control), clock.polls, cycles)
