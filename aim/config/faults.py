"""Where something stands in the configuration file, and what is wrong there. Lowest of this package.

The reader (`document`) and the models (`section`) make faults; `load` turns them all into one ConfigError.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aim.errors import ConfigError

REMEDY = "Correct the file and try again; docs/configuration.md describes every key."


@dataclass(frozen=True, slots=True)
class Place:
    """A spot in the file: `line` counts from 1, `path` is spelled as in the file and empty at the top."""

    line: int
    path: str = ""

    def at_key(self, key: str, line: int | None = None) -> Place:
        """The place of a key in the mapping that stands here."""
        return Place(line or self.line, f"{self.path}.{key}" if self.path else key)

    def at_item(self, index: int, line: int | None = None) -> Place:
        """The place of an item in the list that stands here."""
        return Place(line or self.line, f"{self.path}[{index}]")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong. `text` reads on from the path and holds no value from the file."""

    line: int
    path: str
    text: str

    @classmethod
    def at(cls, place: Place, text: str) -> Fault:
        return cls(place.line, place.path, text)


def failure(name: str, faults: Iterable[Fault]) -> ConfigError:
    """All faults as one error, a line each, in the order of the file. `name` is how the user calls it."""
    lines = []
    for fault in sorted(set(faults)):
        where = f"{name}:{fault.line}: "
        lines.append(f"{where}{fault.path}: {fault.text}" if fault.path else f"{where}{fault.text}")
    return ConfigError("\n".join(lines), REMEDY)
