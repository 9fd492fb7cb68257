"""The process around a server of ours: runs a Python module as `python -m` would, and ends with its parent.

Started by `homeserver` with the server's module and arguments. Standard input is a pipe whose other end the
parent holds: the kernel closes it however the parent ends, SIGKILL included, so no server is left behind.
(Linux can send a signal by itself, but does so when the parent's *thread* ends; this works everywhere.)
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

GRACE = 10.0
"""Seconds that a server has for a clean end after its parent has gone."""


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """`python -m aim.demo.child MODULE [ARGUMENT…]`."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
