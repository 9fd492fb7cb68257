"""What a process that is measured tells of itself: how late its event loop was, and how large it was."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path


class Beat:
    """Something on the event loop that wants to run every millisecond."""

    def __init__(self) -> None:
        self.latest = 0.0
        """Seconds: the most that it ever was late."""

    async def run(self) -> None:
        while True:
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            self.latest = max(self.latest, time.perf_counter() - due)


def megabytes() -> float:
    """The most memory that this process ever had (VmHWM), the interpreter and all libraries included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1_000_000
    raise RuntimeError("no VmHWM in /proc/self/status")
