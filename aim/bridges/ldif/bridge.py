"""The LDIF source: a file that some other program exports becomes a Directory.

In come a path and plain settings; out goes a complete Directory (rules: `directory.flatten`) or an error.
Reading runs in a worker thread; only the numbering of people runs on the event loop, where everybody else
uses the roster too.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from aim.bridges.ldif.parser import parse
from aim.directory.entries import Entry, Rules
from aim.directory.flatten import assemble, enrol
from aim.directory.gather import Gathered, gather
from aim.directory.model import Directory
from aim.directory.roster import Roster
from aim.errors import SourceInvalid, SourceUnavailable


class LdifSource:
    """Implements `ports.Source` over one LDIF file."""

    def __init__(self, path: Path, rules: Rules, name: str | None = None) -> None:
        """`name` is what the organisation is called; None: the topmost container in the file says."""
        self._path = path
        self._rules = rules
        self._name = name

    @property
    def type(self) -> str:
        return "ldif"

    async def read(self, roster: Roster) -> Directory:
        """The whole file.

        SourceUnavailable if it can't be read or changes meanwhile, SourceInvalid if it is malformed, cut off
        or without any entry.
        """
        gathered = await asyncio.to_thread(self._gather)
        enrolled = enrol(gathered, roster)
        return await asyncio.to_thread(
            assemble, gathered, enrolled, roster, source=self.type, name=self._name
        )

    async def entries(self) -> list[Entry]:
        """The whole file as it is, before any rule. Raises as `read` does."""
        found: list[Entry] = []
        await asyncio.to_thread(self._gather, found)
        return found

    async def fingerprint(self) -> str:
        """Changes whenever the file is replaced or written to. SourceUnavailable if there is none."""
        return _fingerprint(await asyncio.to_thread(self._stat))

    def _stat(self) -> os.stat_result:
        try:
            return self._path.stat()
        except OSError as error:
            raise self._unreadable(error) from error

    def _gather(self, into: list[Entry] | None = None) -> Gathered:
        """Reads the file; puts its entries into the list, too, if there is one."""
        if not stat.S_ISREG(self._stat().st_mode):  # opening a pipe would wait for a writer, perhaps for ever
            raise SourceUnavailable(f"{self._path} is not a file", "Let source.path name an LDIF file.")
        try:
            with self._path.open("rb") as stream:
                return self._gather_unchanged(stream, into)
        except OSError as error:
            raise self._unreadable(error) from error

    def _gather_unchanged(self, stream: BinaryIO, into: list[Entry] | None) -> Gathered:
        """Reads an open file, and trusts the outcome, good or bad, only if nobody wrote to it meanwhile."""
        before = _fingerprint(os.fstat(stream.fileno()))
        try:
            gathered = gather(_kept(parse(stream, str(self._path)), into), self._rules)
        except SourceInvalid as error:
            self._check_unchanged(stream, before)
            raise self._named(error) from error
        self._check_unchanged(stream, before)
        if not gathered.read:
            raise SourceInvalid(
                f"{self._path} holds no entries",
                "Export the directory again; to have nobody in it, keep its top entry.",
            )
        return gathered

    def _check_unchanged(self, stream: BinaryIO, before: str) -> None:
        if _fingerprint(os.fstat(stream.fileno())) != before:
            raise SourceUnavailable(
                f"{self._path} is being written",
                "It will be read again. Write exports to another file and rename that when it is complete.",
            )

    def _named(self, error: SourceInvalid) -> SourceInvalid:
        """The error with the file in it, if it is about the entries rather than a line."""
        name = str(self._path)
        return (
            error
            if error.message.startswith(name)
            else SourceInvalid(f"{name}: {error.message}", error.remedy)
        )

    def _unreadable(self, error: OSError) -> SourceUnavailable:
        return SourceUnavailable(
            f"{self._path} can't be read: {error.strerror}",
            "Check source.path, and that the user aim runs as may read the file.",
        )


def _kept(entries: Iterable[Entry], into: list[Entry] | None) -> Iterator[Entry]:
    for entry in entries:
        if into is not None:
            into.append(entry)
        yield entry


def _fingerprint(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns}-{status.st_size}-{status.st_ino}"
