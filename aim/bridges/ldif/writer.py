"""Entries → an LDIF file (RFC 2849), which `parser` reads back as the same entries."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator

from aim.directory.entries import Entry, Value

_LINE = 76
"""Characters before a line is folded."""
_SAFE = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x1f\x21-\x39\x3b\x3d-\x7f][\x01-\x09\x0b\x0c\x0e-\x7f]*")
"""SAFE-STRING of RFC 2849; everything else is base64."""


def to_ldif(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The file in pieces, a record each. Attributes are sorted by name."""
    yield b"version: 1\n\n"
    for entry in entries:
        lines = [_line("dn", entry.dn)]
        for name, values in sorted(entry.attributes.items()):
            lines += [_line(name, value) for value in values]
        # An empty line after the last one, too: so a reader can tell that it is whole.
        yield b"".join(lines) + b"\n"


def _line(name: str, value: Value) -> bytes:
    raw = value.encode() if isinstance(value, str) else bytes(value)
    if not raw:
        return f"{name}:\n".encode()
    if _SAFE.fullmatch(raw) and not raw.endswith(b" "):
        return _folded(f"{name}: ".encode() + raw)
    return _folded(f"{name}:: ".encode() + base64.b64encode(raw))


def _folded(line: bytes) -> bytes:
    parts = [line[:_LINE]]
    parts += [b" " + line[start : start + _LINE - 1] for start in range(_LINE, len(line), _LINE - 1)]
    return b"\n".join(parts) + b"\n"
