"""The command line: parses, calls `app`, prints, and turns what happened into an exit code.

Only typer is imported before a command is chosen, so that `aim --help` answers at once.
"""

from aim.cli.main import main

__all__ = ["main"]
