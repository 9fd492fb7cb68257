"""`python -m bench.live`: some eighteen minutes; `--small` takes one and shows only that everything works."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

from bench.live.measure import FULL, SMALL, Amount, Large, Real, measure_large, measure_real
from bench.live.report import live_tables
from bench.report import machine, markdown


def measure_live(*, small: bool) -> tuple[Real, Large]:
    """Measures on the real one, then on the stand-in."""
    return asyncio.run(_measure(SMALL if small else FULL))


async def _measure(amount: Amount) -> tuple[Real, Large]:
    return await measure_real(amount), await measure_large(amount)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, and prints what docs/performance.md keeps."""
    parser = argparse.ArgumentParser(prog="python -m bench.live", description="How fast the daemon is.")
    parser.add_argument("--small", action="store_true", help="a toy size, to see that everything works")
    options = parser.parse_args(arguments)
    print(machine())
    for table in live_tables(*measure_live(small=options.small)):
        print(f"\n{markdown(table)}")


if __name__ == "__main__":
    main()
