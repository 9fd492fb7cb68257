"""Makes docs/plan.svg, the picture of a plan in the README, from a real one.

Run it by `.venv/bin/python tools/picture.py`. Sets the demo up, provisions it, changes the directory and
prints what `aim plan` says then.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from aim.demo.organisation import harbour_works
from aim.demo.setting import setting

WIDTH = 140
PICTURE = Path(__file__).parent.parent / "docs" / "plan.svg"


def main() -> None:
    """Writes the picture."""
    with tempfile.TemporaryDirectory() as folder:
        # Postgres may run as a user of its own, who has to get in.
        Path(folder).chmod(0o755)
        printed = asyncio.run(_plan(Path(folder)))
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text("$ aim plan", style="bold"))
    console.print(Text.from_ansi(printed))
    svg = console.export_svg(title="aim plan")
    # The picture is to be whole in itself: no fonts from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", svg, flags=re.DOTALL)
    PICTURE.write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE), encoding="utf-8")


async def _plan(folder: Path) -> str:
    organisation = harbour_works()
    async with setting(folder, organisation) as stage:
        if await stage.aim("apply", "--yes") or not await stage.people.accept_all():
            raise SystemExit("the demo could not be provisioned")
        hana, sami, bruno = (
            next(person.uid for person in organisation.people if person.uid.startswith(name))
            for name in ("hana", "sami", "bruno")
        )
        stage.give(organisation.moved(hana, "sales").promoted(sami, "support-moderators").left(bruno))
        environ = {**os.environ, "AIM_CONFIG": str(stage.config), "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
        command = [sys.executable, "-m", "aim", "plan"]
        process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=subprocess.PIPE)
        printed, _ = await process.communicate()
        return printed.decode()


if __name__ == "__main__":
    main()
