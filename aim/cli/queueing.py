"""What each command of `aim queue` does, once its options are parsed. Every function gives the exit code."""

from __future__ import annotations

import asyncio
import json as json_
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from aim import errands
from aim.cli import show as terminal
from aim.cli.commands import DONE, load, whoami
from aim.config.fields import Duration
from aim.config.root import Config
from aim.desired import queueing
from aim.desired.queueing import Decision, QueueChange
from aim.desired.waiting import NOT_CARRIED_OUT, to_json, to_lines
from aim.errors import AimError
from aim.world.recorded import Queued

_CARRIED_OUT = "The daemon does it in its next cycle, which begins at once; without one run `aim apply`."


def show(path: Path, *, within: str | None, json: bool) -> int:
    ahead = None if within is None else _duration(within)
    found = asyncio.run(errands.read_queue(load(path), ahead))
    if json:
        sys.stdout.write(json_.dumps(to_json(found), indent=1, ensure_ascii=False) + "\n")
    else:
        terminal.lines(to_lines(found))
    return DONE


def restore(path: Path, name: str) -> int:
    def decide(queue: Mapping[str, Queued], decision: Decision) -> QueueChange:
        return queueing.restore(queue, name, decision)

    return _change(load(path), decide)


def erase(path: Path, name: str, *, yes: bool) -> int:
    def decide(queue: Mapping[str, Queued], decision: Decision) -> QueueChange:
        return queueing.erase(queue, name, decision, sure=yes)

    return _change(load(path), decide)


def hold(path: Path, name: str) -> int:
    def decide(queue: Mapping[str, Queued], decision: Decision) -> QueueChange:
        return queueing.hold(queue, name, decision)

    return _change(load(path), decide)


def release(path: Path, name: str) -> int:
    config = load(path)

    def decide(queue: Mapping[str, Queued], decision: Decision) -> QueueChange:
        return queueing.release(queue, name, decision, config.soft_delete_period)

    return _change(config, decide)


def reschedule(path: Path, name: str | None, *, everybody: bool, yes: bool) -> int:
    if (name is None) != everybody:
        raise AimError(
            "either one person is meant, or --all",
            "write `aim queue reschedule @evan:example.com`, or `aim queue reschedule --all`",
        )
    config = load(path)

    def decide(queue: Mapping[str, Queued], decision: Decision) -> QueueChange:
        return queueing.reschedule(queue, name, decision, config.soft_delete_period, sure=yes)

    return _change(config, decide)


def _change(config: Config, decide: errands.Decide) -> int:
    change = asyncio.run(errands.change_queue(config, decide, whoami()))
    terminal.lines(change.messages or ["nobody waits"])
    if not errands.erases(config):
        terminal.warn([NOT_CARRIED_OUT])
    elif change.acts:
        terminal.lines([_CARRIED_OUT])
    return DONE


def _duration(text: str) -> timedelta:
    try:
        found: timedelta = TypeAdapter[timedelta](Duration).validate_python(text)
    except ValidationError:
        raise AimError(
            f"--within {text}: that is no time", "write an amount and a unit, s, m, h or d: 12h, 7d"
        ) from None
    return found
