"""`aim run`: looks at the source, listens to the homeserver, runs cycles when there is reason to."""

from aim.daemon.awaiting import Awaiting
from aim.daemon.daemon import FULL_CYCLE, Daemon, Pace

__all__ = ["FULL_CYCLE", "Awaiting", "Daemon", "Pace"]
