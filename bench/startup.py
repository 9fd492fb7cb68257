"""How long `aim --help` takes, beside a Python that imports typer and does nothing.

The two take turns, so that whatever else the machine does meets both. Wall-clock time: it is what a person
waits.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

TYPER = (sys.executable, "-c", "import typer")


@dataclass(frozen=True, slots=True)
class Startup:
    """Seconds of each run."""

    aim: tuple[float, ...]
    typer: tuple[float, ...]

    @property
    def ratio(self) -> float:
        return median(self.aim) / median(self.typer)


def measure_startup(runs: int) -> Startup:
    """Runs both so many times, after once for the disk cache. Raises CalledProcessError if one fails."""
    command = _help_command()
    _seconds(command)
    _seconds(TYPER)
    pairs = [(_seconds(command), _seconds(TYPER)) for _ in range(runs)]
    return Startup(tuple(aim for aim, _ in pairs), tuple(typer for _, typer in pairs))


def _help_command() -> Sequence[str]:
    """The installed command; where there is none beside this Python, what it does."""
    script = Path(sys.executable).with_name("aim")
    if script.exists():
        return (str(script), "--help")
    return (sys.executable, "-c", "from aim.cli import main; main()", "--help")


def _seconds(command: Sequence[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "NO_COLOR": "1"})
    return time.perf_counter() - started
