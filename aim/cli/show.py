"""What the terminal shows: plans, directories, findings, outcomes, progress. Results on standard output,
everything about the way there on standard error. No colour where there is no terminal, or with NO_COLOR.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text
from rich.tree import Tree

from aim.directory.model import Branch, Directory, Group
from aim.directory.roster import Roster
from aim.matrix.check import Finding, Verdict
from aim.ports import Outcome, OutcomeStatus

_WIDE = 1_000_000
_VERDICTS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
_OUTCOMES = {
    OutcomeStatus.DONE: "green",
    OutcomeStatus.FAILED: "bold red",
    OutcomeStatus.SKIPPED: "yellow",
    OutcomeStatus.HELD: "bold magenta",
}


def out() -> Console:
    """Standard output. Lines are cut to the width of a terminal only where there is one."""
    return _console(sys.stdout.isatty(), stderr=False)


def err() -> Console:
    """Standard error."""
    return _console(sys.stderr.isatty(), stderr=True)


def _console(is_terminal: bool, *, stderr: bool) -> Console:
    return Console(
        stderr=stderr, width=None if is_terminal else _WIDE, soft_wrap=not is_terminal, highlight=False
    )


def say(what: RenderableType) -> None:
    """Prints a result."""
    out().print(what)


def lines(texts: Iterable[str]) -> None:
    """Prints lines as they are; a terminal breaks those that are too long for it."""
    console = out()
    for text in texts:
        console.print(Text(text), soft_wrap=True)


def warn(messages: Iterable[str]) -> None:
    """Prints warnings, a line each."""
    for message in messages:
        err().print(Text(f"warning: {message}", style="yellow"))


def refused(message: str, remedy: str) -> None:
    """Says why nothing is done, and what to do about it, as an error is said."""
    console = err()
    for line in (f"error: {message}", remedy):
        console.print(Text(line), soft_wrap=True)


def notice(text: str) -> None:
    """Says on the way why it takes long."""
    err().print(Text(text, style="dim"))


def findings(found: Sequence[Finding]) -> None:
    """Prints what `aim check` found, a line each, the remedy below."""
    console = out()
    for finding in found:
        line = Text(f"{finding.verdict:<4}  ", style=_VERDICTS[finding.verdict])
        line.append(f"{finding.name}: ", style="bold").append(finding.message)
        console.print(line)
        if finding.remedy and finding.verdict is not Verdict.OK:
            console.print(Text(f"      {finding.remedy}", style="dim"))


def outcomes(found: Sequence[Outcome]) -> None:
    """Prints what was not done and why, then the numbers."""
    console = out()
    for outcome in found:
        if outcome.status in {OutcomeStatus.FAILED, OutcomeStatus.SKIPPED}:
            line = Text(f"{outcome.status}  ", style=_OUTCOMES[outcome.status])
            line.append(f"{outcome.action.identity}: {outcome.message}")
            console.print(line)
    counts = [
        Text(f"{sum(outcome.status is status for outcome in found)} {status}", style=_OUTCOMES[status])
        for status in OutcomeStatus
        if any(outcome.status is status for outcome in found)
    ]
    console.print(Text(", ").join(counts))


def directory(found: Directory) -> RenderableType:
    """The directory for people: containers with their numbers, users, problems."""
    roster = found.roster
    tree = Tree(Text(f"{found.name} ({found.source})", style="bold"), guide_style="dim")
    nested = {branch.group for branch in found.tree}
    if found.tree:
        units = tree.add(Text(f"{len(found.tree)} units and domains", style="bold"), guide_style="dim")
        _add_branches(units, found, found.branches(), None)
    others = [group for position, group in enumerate(found.groups) if position not in nested]
    groups = tree.add(Text(f"{len(others)} groups", style="bold"), guide_style="dim")
    for group in others:
        groups.add(_container(roster, group))
    users = tree.add(Text(f"{len(found.users)} users", style="bold"), guide_style="dim")
    for user in sorted(found.users, key=lambda user: user.localpart):
        line = Text().append(user.localpart, style="" if user.active else "dim strike")
        line.append("" if user.active else " (disabled)", style="yellow")
        line.append(f"  {user.display_name or ''}  {', '.join(user.emails)}  {user.id}", style="dim")
        users.add(line)
    if found.problems:
        problems = tree.add(Text(f"{len(found.problems)} problems", style="bold"), guide_style="dim")
        for problem in found.problems:
            problems.add(Text(f"{problem.severity} {problem.subject}: {problem.message}", style="yellow"))
    return tree


def _add_branches(
    tree: Tree, found: Directory, below: Mapping[str | None, Sequence[Branch]], parent: str | None
) -> None:
    """The units below `parent`, each with those below it, by DN."""
    for branch in sorted(below.get(parent, ()), key=lambda branch: found.groups[branch.group].id):
        line = _container(found.roster, found.groups[branch.group])
        _add_branches(tree.add(line, guide_style="dim"), found, below, branch.id)


def _container(roster: Roster, group: Group) -> Text:
    names = roster.localparts(group.members)
    line = Text(f"{group.kind} ", style="cyan").append(group.id, style="")
    if group.name.casefold() not in group.id.casefold():
        # An id that says nothing to people.
        line.append(f"  {group.name}")
    shown = f": {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else ""
    return line.append(f"  {len(names)}{shown}", style="dim")


class Bar:
    """Progress on standard error while something long goes on; nothing where there is no terminal.

    Appears with the first step and goes away with the last, so that plans and questions have the terminal
    to themselves. A context manager, to go away in any case.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown: tuple[Progress, TaskID] | None = None
        self._wanted = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hide()

    def step(self, done: int, total: int) -> None:
        """So many of so many are done."""
        if done >= total:
            self._hide()
        elif self._wanted:
            progress, task = self._shown or self._show()
            progress.update(task, completed=done, total=total)

    def _show(self) -> tuple[Progress, TaskID]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        progress = Progress(*columns, console=err(), transient=True)
        progress.start()
        self._shown = progress, progress.add_task(self._what, total=None)
        return self._shown

    def _hide(self) -> None:
        if self._shown is not None:
            self._shown[0].stop()
            self._shown = None
