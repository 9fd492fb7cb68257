"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path,
    typer.Option(
        "-c", "--config", metavar="FILE", envvar="AIM_CONFIG", help="The configuration.", show_default=True
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask. Never lifts a guard.")]
DEFAULT_CONFIG = Path("config.yaml")
