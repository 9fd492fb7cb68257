"""The documents: links lead somewhere, commands and files that they name exist, the glossary is complete."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import pytest
import typer.main

from aim.cli.main import app
from aim.directory.model import GroupKind, Severity
from aim.matrix import check
from aim.planner import guards
from aim.planner.actions import ActionType
from aim.ports import OutcomeStatus

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *ROOT.glob("docs/**/*.md")]
)
GLOSSARY = ROOT / "docs" / "glossary.md"

document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


# Reading Markdown, as far as these documents use it


class Text(NamedTuple):
    """A document in parts."""

    prose: str
    """Without blocks of code."""
    code: list[str]
    """The lines of those blocks."""

    @property
    def spans(self) -> list[str]:
        """What the prose has between backticks, each on one line."""
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]


def text_of(markdown: str) -> Text:
    """Tells prose from code: between fences, or indented after an empty line."""
    prose: list[str] = []
    code: list[str] = []
    is_fenced, is_code, before = False, False, ""
    for line in markdown.splitlines():
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced:
            code.append(line)
        else:
            is_code = line.startswith("    ") and (is_code or not before)
            (code if is_code else prose).append(line)
            before = line.strip()
    return Text("\n".join(prose), code)


def read(path: Path) -> Text:
    return text_of(path.read_text(encoding="utf-8"))


def test_code_is_told_from_prose() -> None:
    found = text_of("One `a\nb`.\n\n    aim x\n    y\n\n1. two\n    more\n\n```\naim z\n```\nend `c`\n")
    assert found.code == ["    aim x", "    y", "aim z"]
    assert found.spans == ["a b", "c"]


# Links


def targets(text: Text) -> Iterator[str]:
    """Where links, images and their definitions lead."""
    prose = re.sub(r"`[^`]+`", "", text.prose)
    for pattern in (r"\]\(<?([^()\s<>]+)>?[^()]*\)", r"(?m)^\[[^\]]+\]:\s*(\S+)", r'(?:href|src)="([^"]+)"'):
        yield from re.findall(pattern, prose)


def anchors(text: Text) -> set[str]:
    """The anchors that GitHub gives to headings: of two equal ones the second has a number."""
    found: Counter[str] = Counter()
    made: set[str] = set()
    for heading in re.findall(r"(?m)^#{1,6} +(.+?) *#*$", text.prose):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        made.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return made


def broken_links(path: Path, root: Path) -> list[str]:
    """The relative links of a document that lead nowhere, or out of `root`."""
    broken = []
    for target in targets(read(path)):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        place = (path.parent / file).resolve() if file else path
        is_there = place.exists() and place.is_relative_to(root)
        if not is_there or (anchor and place.suffix == ".md" and anchor not in anchors(read(place))):
            broken.append(target)
    return broken


@document
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path, ROOT) == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# One `two`: three\n\n# Again\n\n# Again\n")
    (tmp_path / "page.md").write_text(
        '# Here\n[a](there.md) [b](there.md#one-two-three "x") ![c](gone.svg) [![d](there.md)](gone.md)\n'
        "[e](#here) [f](#gone) [g](there.md#again-1) [h](there.md#again-2) [i](https://example.com/gone)\n"
        '`[j](gone)` <img src="gone.png"> [k](../outside.md)\n\n[l]: gone.txt\n'
    )
    (tmp_path.parent / "outside.md").touch()
    assert sorted(broken_links(tmp_path / "page.md", tmp_path)) == [
        "#gone",
        "../outside.md",
        "gone.md",
        "gone.png",
        "gone.svg",
        "gone.txt",
        "there.md#again-2",
    ]


# Commands

CLI = typer.main.get_command(app)
COMMANDS = getattr(CLI, "commands", {})
TYPED = re.compile(r"\s*(?:\$ +)?(?:sudo (?:-u \S+ )?)?(?:\w+=\S* |ExecStart=)*(?:\S*/)?aim +(\S.*)")
"""A line that calls `aim`: after a prompt, as another user, with variables, by its path."""


def calls(text: Text) -> Iterator[list[str]]:
    """The words after `aim`, wherever a document says what to type."""
    for line in chain(text.code, text.spans):
        if match := TYPED.match(line):
            yield re.split(r" [#|&;>]", f"{match[1]} ")[0].split()


def options_of(command: object) -> set[str]:
    found = {"-h", "--help"}
    for parameter in getattr(command, "params", []):
        found.update(parameter.opts)
        found.update(parameter.secondary_opts)
    return found


def wrong_calls(text: Text) -> list[str]:
    """Calls of commands, or with options, that do not exist."""
    wrong = []
    for words in calls(text):
        name = words[0]
        if not re.fullmatch(r"[a-z][a-z-]*|-\S+", name):
            continue
        command = CLI if name.startswith("-") else COMMANDS.get(name)
        for word in words[1:]:
            # `aim queue` and the like have commands of their own.
            command = getattr(command, "commands", {}).get(word, command)
        options = {word.partition("=")[0] for word in words if word.startswith("-")}
        if command is None or not options <= options_of(command):
            wrong.append(" ".join(["aim", *words]))
    return wrong


@document
def test_commands_exist(path: Path) -> None:
    assert wrong_calls(read(path)) == []


def test_wrong_commands_are_found() -> None:
    found = text_of(
        "`aim plan --json` `aim frobnicate` `aim apply\n--yes --now` `aim --version` `aim --gone`\n\n"
        "    $ .venv/bin/aim plan --wet | grep --color x\n    aim run --config=x  # --fast\n"
    )
    assert wrong_calls(found) == ["aim plan --wet", "aim frobnicate", "aim apply --yes --now", "aim --gone"]


def test_every_command_is_documented() -> None:
    named = {words[0] for path in DOCUMENTS for words in calls(read(path))}
    assert COMMANDS
    assert set(COMMANDS) <= named


# Files

FILE = re.compile(r"(?:aim|bench|docs|requirements|tests|tools)/[\w./*-]*")


def files_in(text: Text) -> set[str]:
    """Paths within the project that are named; not those of files that somebody is told to make."""
    return {span for span in text.spans if FILE.fullmatch(span) and "NNNN" not in span}


@document
def test_files_exist(path: Path) -> None:
    missing = [name for name in sorted(files_in(read(path))) if not any(ROOT.glob(name))]
    assert missing == []


def test_files_are_found_in_the_text() -> None:
    assert files_in(text_of("`aim/errors.py`, `aim/<name>/x.py`, `tests/unit/`, aim/no.py, `aim plan`")) == {
        "aim/errors.py",
        "tests/unit/",
    }


def test_the_layers_are_those_that_are_checked() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    table = read(ROOT / "docs" / "architecture.md").prose.partition("\n## Layers\n")[2].partition("\n## ")[0]
    drawn = [re.findall(r"`([^`]+)`", row[1]) for row in re.finditer(r"(?m)^\| (`aim/[^|]*) \|", table)]
    assert [[module.replace(".", "/") for module in layer.split(" | ")] for layer in layers] == [
        [name.removesuffix(".py").removesuffix("/") for name in row] for row in drawn
    ]


# The glossary

ENUMS: tuple[type[StrEnum], ...] = (
    ActionType,
    GroupKind,
    OutcomeStatus,
    Severity,
    check.Verdict,
    guards.Kind,
)
TYPES = (
    "Action Approval Conflict Cycle Desired Directory Done Entry Executor Finding Grant Group Keys Marker "
    "Memory Observed Observer Outcome People Plan Problem Recorded Recorder Reconciler Roster Seen Source "
    "Trip User Verdict World"
).split()
WORDS = (
    "source, bridge, directory, user, group, account, room, space, membership, managed, world, desired, "
    "observed, recorded, plan, action, reason, guard, held, cycle, outcome, roster, marker, intent, pending, "
    "entitled, contested, hands off, trip, digest, approval, rebind, recovery, observer, reconciler, keys"
).split(", ")


def defined_words() -> list[str]:
    """The words that the glossary explains, one by one."""
    cells = re.findall(r"(?m)^\| ([^|]+) \|", read(GLOSSARY).prose)
    return [word for cell in cells for word in cell.replace("`", "").split(", ")]


@cache
def names_in(file: str) -> frozenset[str]:
    """Classes, functions and variables that a module or its classes define."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
    return frozenset(found)


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.__qualname__)
def test_the_glossary_has_every_value(enum: type[StrEnum]) -> None:
    spans = set(read(GLOSSARY).spans)
    assert [value for value in enum if value not in spans] == []


def test_the_glossary_has_the_types_and_the_words() -> None:
    spans = read(GLOSSARY).spans
    assert [name for name in TYPES if name not in spans] == []
    assert sorted(set(WORDS) - set(defined_words())) == []


def test_the_glossary_explains_nothing_twice() -> None:
    counted = Counter(defined_words())
    assert [word for word, times in counted.items() if times > 1 and word != "word"] == []


def test_the_glossary_says_where_things_are() -> None:
    places = re.findall(r"`(\w+)` in `([^`]+)`", read(GLOSSARY).prose)
    assert len(places) > len(TYPES)
    assert [(name, file) for name, file in places if name not in names_in(file)] == []
