"""What one decision takes, part by part, however few rooms it is about: processor time.

In: the organisation of `bench.organisation`, unchanged, as the core gets it. What is gathered before, from
memory, is not in it: `correction` and `standin` have the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from aim.desired.desire import desire
from aim.planner.memory import remember
from aim.planner.plan import make_plan
from aim.planner.world import World
from bench.organisation import NOW, Inputs, make_inputs
from bench.shape import Size

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Decision:
    """Seconds of processor time, medians."""

    size: Size
    parts: Mapping[str, float]


def decide(size: Size, repetitions: int) -> Decision:
    """Decides so often that there is nothing to do. Raises RuntimeError if there is something."""
    inputs = make_inputs(size, changed=False)
    runs: dict[str, list[float]] = {"desire": [], "diff and guards": [], "remember": []}
    for _ in range(repetitions):
        for name, seconds in _once(inputs).items():
            runs[name].append(seconds)
    return Decision(size, {name: median(seconds) for name, seconds in runs.items()})


def _once(inputs: Inputs) -> Mapping[str, float]:
    desired, desiring = _timed(
        lambda: desire(inputs.config, inputs.directory, inputs.observed, inputs.recorded)
    )
    world = World(desired, inputs.observed, inputs.recorded, NOW, NOW)
    plan, planning = _timed(lambda: make_plan(world))
    if plan.actions:
        raise RuntimeError("there is something to do: the figures would be worth nothing")
    _, remembering = _timed(lambda: remember(world, plan))
    return {"desire": desiring, "diff and guards": planning, "remember": remembering}


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    started = time.process_time()
    result = work()
    return result, time.process_time() - started
