"""Brings a block of the file into the one form that its model takes. Stands between `document` and pydantic.

Keys get their one spelling, secrets are read from their `<key>_file`, keys that may stand in two places are
moved to one. What can't be done becomes a fault; the rest goes on, so that all faults are told at once.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from aim.config.document import Block
from aim.config.faults import Fault, Place
from aim.config.keys import camel, secret_files, shown, spellings

if TYPE_CHECKING:
    from aim.config.section import Section


class Preparation:
    """One block on its way to its model."""

    def __init__(self, cls: type[Section], raw: Block, directory: Path) -> None:
        self.faults: list[Fault] = []
        self.meant: set[str] = set()
        """Keys that an unknown key was probably meant to be: not reported as missing too."""
        self._cls = cls
        self._raw = raw
        self._directory = directory

    def run(self) -> Block:
        block = Block(self._raw.place)
        files: list[tuple[str, str]] = []
        for key, value in self._raw.items():
            home = spellings(self._cls).get(key)
            if home is not None:
                self._take(block, home, key, value)
            elif key in secret_files(self._cls):
                files.append((key, secret_files(self._cls)[key]))
            else:
                self._unknown(key)
        for key, home in files:
            self._take_file(block, home, key)
        for other, home in self._cls.MOVES:
            self._move(block, other.split("."), home.split("."))
        return block

    def _fault(self, place: Place, text: str) -> None:
        self.faults.append(Fault.at(place, text))

    def _take(self, block: Block, home: str, key: str, value: object) -> None:
        place = self._raw.place_of(key)
        if home in block:
            other = block.place_of(home)
            self._fault(place, f"is the same key as {other.path} in line {other.line}; keep one of them")
        elif value is not None:
            # A key without a value is a key left out: a section whose lines are all commented out, say.
            block.put(home, value, place)

    def _unknown(self, key: str) -> None:
        known = {**spellings(self._cls), **secret_files(self._cls)}
        by_lower_case = {
            spelling.lower(): spelling for spelling in sorted(known, key=lambda s: s != shown(s))
        }
        close = difflib.get_close_matches(key.lower(), by_lower_case, n=1)
        text = "unknown key"
        if close:
            spelling = by_lower_case[close[0]]
            self.meant.add(known[spelling])
            text = f'unknown key; did you mean "{spelling}"?'
        self._fault(self._raw.place_of(key), text)

    def _take_file(self, block: Block, home: str, key: str) -> None:
        """Reads a secret from the file that `key` names."""
        value, place = self._raw[key], self._raw.place_of(key)
        if value is None:
            return
        if home in block:
            self._fault(place, f"{block.place_of(home).path} is given too; keep one of them")
            return
        # Stands in for what can't be read, so that the secret isn't reported as missing as well.
        block.put(home, "", place)
        if not isinstance(value, str) or not value:
            self._fault(place, "must be the path of a file")
            return
        try:
            secret = (self._directory / value).read_text(encoding="utf-8")
        except FileNotFoundError:
            # Without its name: people put the secret itself here by mistake.
            self._fault(place, f"the file does not exist (relative paths start from {self._directory})")
        except (OSError, ValueError):
            self._fault(place, "the file cannot be read as text")
        else:
            block.put(home, secret.rstrip("\r\n"), place)

    def _move(self, block: Block, other: list[str], home: list[str]) -> None:
        """Takes a key from its `other` place to its `home`, if it is there."""
        source = self._inner(block, other[:-1], make=False)
        key = self._find(source, other[-1])
        if source is None or key is None:
            return
        target = self._inner(block, home[:-1], make=True)
        value, place = source.pop(key), source.place_of(key)
        if target is None:
            return
        present = self._find(target, home[-1])
        if present is not None:
            self._fault(place, f"{target.place_of(present).path} is given too; keep one of them")
        elif value is not None:
            target.put(home[-1], value, place)

    @staticmethod
    def _find(block: Block | None, key: str) -> str | None:
        return next((k for k in (key, camel(key)) if block is not None and k in block), None)

    def _inner(self, block: Block, way: list[str], *, make: bool) -> Block | None:
        """The block at the end of `way`, as a copy of ours that may be changed; None if there is none."""
        for step in way:
            value = block.get(step, Block(block.place.at_key(shown(step))) if make else None)
            if not isinstance(value, dict):
                return None
            inner = value.copy() if isinstance(value, Block) else Block(block.place_of(step), value)
            block.put(step, inner, block.place_of(step))
            block = inner
        return block
