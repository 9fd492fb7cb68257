"""What tests of the pages in docs/ share: the errors that a page lists, and the text that modules write."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    """Of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def errors_in(text: str) -> list[str]:
    """Those in the page's table of errors, in which `…` stands for what differs."""
    return re.findall(r"(?m)^\| `([^`]+)` \|", text.partition("## Errors")[2])


def recipes_in(text: str, begin: str) -> list[str]:
    """The examples that begin so."""
    return [block for block in re.findall(r"(?m)(?:^    .*\n)+", text) if block.startswith(begin)]


@cache
def texts_in(folder: str) -> list[str]:
    """Every piece of text that the modules in that folder of the project write."""
    paths = sorted((ROOT / folder).glob("*.py"))
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def pieces_of(error: str) -> list[str]:
    """What of a documented error is always the same."""
    return [piece for part in error.split("…") if (piece := part.strip())]


def unwritten(pieces: Iterable[str], folder: str) -> list[str]:
    """Those that no module in that folder writes."""
    written = texts_in(folder)
    return [piece for piece in pieces if not any(piece in text for text in written)]
