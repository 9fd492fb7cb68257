"""A server as a process of its own: started, awaited, stopped by its pid, and never left behind."""

from __future__ import annotations

import errno
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from aim.demo import homeserver


class ServerFailed(Exception):
    """It did not start; the text is the end of what it said."""


class ServerProcess:
    """Runs `command` in the foreground. What it says is appended to the file `log`.

    Start it from the main thread: Linux ends it with the thread that started it.
    """

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self._command = [str(word) for word in command]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid if self._process else None

    def start(self, addresses: Sequence[tuple[str, int]], seconds: float = 30.0) -> None:
        """Returns when all `addresses` accept connections.

        Raises ServerFailed if it ended or took too long.
        """
        assert self._process is None, "it runs already"
        with self._log.open("ab") as output:
            # setpriv becomes the server: the pid is the server's own.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *self._command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            self._await(addresses, seconds)
        except BaseException:
            self.kill()
            raise

    def _await(self, addresses: Sequence[tuple[str, int]], seconds: float) -> None:
        assert self._process
        last = time.monotonic() + seconds
        for address in addresses:
            while not accepts(*address):
                if self._process.poll() is not None:
                    raise ServerFailed(f"{self._command[0]} ended while it started: {self.said()}")
                if time.monotonic() > last:
                    raise ServerFailed(f"{self._command[0]} is not up after {seconds:g} s: {self.said()}")
                time.sleep(0.01)

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-2000:].strip()

    def stop(self, seconds: float = 10.0) -> None:
        """Asks it to end and waits for that; kills it if it takes too long.

        Nothing to do if it doesn't run.
        """
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL: connections are cut wherever they are."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None


class Running(ABC):
    """A server that starts and stops as often as you like, and is a context manager. Needs `_process`."""

    _process: ServerProcess

    @property
    @abstractmethod
    def _addresses(self) -> Sequence[tuple[str, int]]:
        """Where it listens."""

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers. Raises ServerFailed."""
        self._process.start(self._addresses)

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        """In the middle of whatever it does."""
        self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def accepts(host: str, port: int) -> bool:
    """True if somebody listens there."""
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, port)) == 0


_given: set[int] = set()
"""Ports that were handed out: whoever has one may not listen on it yet."""


def free_port() -> int:
    """A port as the demo chooses one, and that was not given to anybody before."""
    while (port := homeserver.free_port()) in _given:
        pass
    _given.add(port)
    return port


def can_listen(host: str, port: int) -> bool:
    """True if a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
