"""What is measured of the core, each case in a process of its own so that memory can be told apart.

In: a case and a size. Out: a Measured. `python -m bench --case core --size 100000,5000,1000 --repetitions 5`
runs one of them and prints it as JSON; `run_case` starts that process and reads it.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from statistics import median

from aim.desired.desire import desire
from aim.desired.identity import conflicts
from aim.planner.diff import Difference, diff
from aim.planner.world import World
from bench.organisation import NOW, Inputs, held, intern, make_inputs, make_rows
from bench.reference import Reference, make_reference, unite
from bench.shape import Size

ROOT = Path(__file__).parent.parent


class Case(StrEnum):
    """What is run between two looks at the clock."""

    REFERENCE = "reference"
    """The groups' member sets united into each space, plain Python sets, and nothing else."""
    CORE = "core"
    """desire and diff; the homeserver is as it should be."""
    CORE_CHANGED = "core-changed"
    """desire and diff; 0.1 % of the people have moved, left or come."""
    INTERN = "intern"
    """As core, but groups and rooms are plain sets of localparts, and what makes bitmaps of them counts."""
    INTERN_CHANGED = "intern-changed"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one process found out."""

    seconds: tuple[float, ...]
    """Processor time of each repetition."""
    inputs: int
    """Bytes of resident memory when all inputs are there and nothing is computed yet."""
    peak: int
    """Most resident memory the process ever had, in bytes: interpreter, generator and inputs included."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Name → median seconds."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How large inputs and result are."""

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return median(self.seconds)


def run_case(case: Case, size: Size, repetitions: int) -> Measured:
    """Measures in a new process. Raises CalledProcessError if that fails."""
    numbers = f"{size.users},{size.groups},{size.spaces}"
    command = [sys.executable, "-m", "bench", "--case", case, "--size", numbers]
    done = subprocess.run(
        [*command, "--repetitions", str(repetitions)], stdout=subprocess.PIPE, check=True, cwd=ROOT
    )
    found = json.loads(done.stdout)
    return Measured(**{**found, "seconds": tuple(found["seconds"])})


def as_json(measured: Measured) -> str:
    """What `run_case` reads."""
    return json.dumps(asdict(measured))


def measure(case: Case, size: Size, repetitions: int) -> Measured:
    """Measures in this process, which should do nothing else before or after."""
    changed = case in {Case.CORE_CHANGED, Case.INTERN_CHANGED}
    # Some million new objects would be gone through again and again while they are made.
    gc.disable()
    match case:
        case Case.REFERENCE:
            return _measure_reference(make_reference(size), repetitions)
        case Case.CORE | Case.CORE_CHANGED:
            return _measure_core(make_inputs(size, changed=changed), repetitions, changed=changed)
        case Case.INTERN | Case.INTERN_CHANGED:
            rows = held(make_rows(size, changed=changed, gather=frozenset))
            return _measure_intern(lambda: intern(rows), repetitions, changed=changed)


def _measure_reference(reference: Reference, repetitions: int) -> Measured:
    inputs = _settle()
    seconds = []
    memberships = 0
    for _ in range(repetitions):
        started = time.process_time()
        result = unite(reference)
        seconds.append(time.process_time() - started)
        memberships = sum(map(len, result.values()))
        del result
    counts = {"memberships of groups": sum(map(len, reference.groups.values()))}
    counts["memberships of spaces"] = memberships
    return Measured(tuple(seconds), inputs, _status("VmHWM"), counts=counts)


def _measure_core(inputs: Inputs, repetitions: int, *, changed: bool) -> Measured:
    resident = _settle()
    desiring, diffing, identity = [], [], []
    counts: Mapping[str, int] = {}
    for _ in range(repetitions):
        started = time.process_time()
        desired = desire(inputs.config, inputs.directory, inputs.observed, inputs.recorded)
        between = time.process_time()
        difference = diff(World(desired, inputs.observed, inputs.recorded, NOW, NOW))
        ended = time.process_time()
        desiring.append(between - started)
        diffing.append(ended - between)
        counts = _checked(difference, changed=changed)
        del desired, difference
    peak = _status("VmHWM")
    for _ in range(repetitions):
        started = time.process_time()
        conflicts(inputs.directory.users, inputs.recorded.seen)
        identity.append(time.process_time() - started)
    started = time.process_time()
    gc.collect()
    collection = time.process_time() - started
    seconds = tuple(map(sum, zip(desiring, diffing, strict=True)))
    parts = {
        "identity": median(identity),
        "mapping": median(desiring) - median(identity),
        "diff": median(diffing),
        "collection": collection,
    }
    return Measured(seconds, resident, peak, parts, counts)


def _measure_intern(make: Callable[[], Inputs], repetitions: int, *, changed: bool) -> Measured:
    resident = _settle()
    seconds = []
    for _ in range(repetitions):
        started = time.process_time()
        inputs = make()
        desired = desire(inputs.config, inputs.directory, inputs.observed, inputs.recorded)
        difference = diff(World(desired, inputs.observed, inputs.recorded, NOW, NOW))
        seconds.append(time.process_time() - started)
        _checked(difference, changed=changed)
        del inputs, desired, difference
    return Measured(tuple(seconds), resident, _status("VmHWM"))


def _settle() -> int:
    """Turns the garbage collector on, as it is in a program that has just had a full collection. Gives the
    resident memory."""
    gc.enable()
    gc.collect()
    return _status("VmRSS")


def _status(key: str) -> int:
    """A figure of this process, in bytes (proc(5), /proc/pid/status)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(key)


def _checked(difference: Difference, *, changed: bool) -> Mapping[str, int]:
    """Actions by type. A figure for a wrong result would be worth nothing."""
    found = Counter(action.type.value for action in difference.actions)
    if changed != bool(found):
        raise RuntimeError(f"the diff of this organisation should {'not ' * changed}be empty: {dict(found)}")
    return dict(sorted(found.items()))
