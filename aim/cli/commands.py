"""What each command does, once its options are parsed. Every function gives the exit code.

Exit codes, the first that fits: 1 error, 3 a guard holds something, 2 there are changes (only when asked
for), 0 done.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aim import app, errands
from aim.cli import show
from aim.config.load import load_config
from aim.config.root import Config
from aim.errors import AimError, PlanError
from aim.planner.document import digest, read_saved, to_document, to_text
from aim.planner.explain import Explanation, Question
from aim.planner.plan import Plan
from aim.planner.render import render, summary
from aim.ports import Outcome
from aim.reconciler import Agreement, Cycle, Hooks
from aim.scim import unapplied

DONE, ERROR, CHANGES, HELD = 0, 1, 2, 3

Result = TypeVar("Result")


def load(path: Path) -> Config:
    """The configuration; its warnings are printed. Raises ConfigError."""
    loaded = load_config(path, os.environ)
    show.warn(loaded.warnings)
    return loaded.config


def _load_to_read(path: Path) -> Config:
    """For commands that read the source at once."""
    config = load(path)
    show.warn(app.unprotected(config))
    return config


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def _code(plan: Plan, *, failed: bool = False, detailed: bool = False) -> int:
    if failed:
        return ERROR
    if plan.holding:
        return HELD
    return CHANGES if detailed and plan.actions else DONE


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AimError(
            f"{path} can't be read: {error}", "name a plan saved by `aim plan --out FILE`"
        ) from error


# -- plan, apply, run ------------------------------------------------------------------------------------


def plan(
    path: Path, *, json: bool, out: Path | None, detailed_exitcode: bool, unfold: bool, fresh: bool
) -> int:
    config = _load_to_read(path)
    made = _run(_plan(config, fresh=fresh))
    document = to_text(to_document(made, app.now()))
    if out is not None:
        try:
            out.write_text(document, encoding="utf-8")
        except OSError as error:
            raise AimError(
                f"{out} can't be written: {error.strerror}", "name another file with --out"
            ) from error
    if json:
        sys.stdout.write(document)
    else:
        show.say(render(made, unfold=unfold))
    return _code(made, detailed=detailed_exitcode)


async def _plan(config: Config, *, fresh: bool = False) -> Plan:
    with show.Bar("reading rooms") as bar:
        async with app.observing(config, bar.step, fresh=fresh) as observer:
            made = await observer.plan()
    if (warning := await unapplied(config)) is not None:
        show.warn([warning])
    return made


def apply(path: Path, *, yes: bool, plan: Path | None, detailed_exitcode: bool, unfold: bool) -> int:
    config = _load_to_read(path)
    saved = read_saved(_read(plan)).digest if plan else None
    cycle = _run(_apply(config, yes=yes, saved=saved, unfold=unfold))
    if not cycle.agreed:
        show.say("nothing was changed")
        return DONE
    if cycle.outcomes:
        show.outcomes(cycle.outcomes)
    return _code(cycle.plan, failed=bool(cycle.failed), detailed=detailed_exitcode)


async def _apply(config: Config, *, yes: bool, saved: str | None, unfold: bool) -> Cycle:
    async def agree(made: Plan) -> bool:
        if saved is not None and saved != digest(made):
            raise PlanError(
                "the saved plan is not what a cycle would do now: the world has moved on since",
                "make a new plan with `aim plan --out FILE`, look at it, and apply that",
            )
        # Whoever saved a plan and needs not be asked has looked at it when it was made.
        show.say(summary(made) if saved is not None and yes else render(made, unfold=unfold))
        return not made.due or yes or await asyncio.to_thread(_ask, len(made.due))

    with show.Bar("reading rooms") as reading, show.Bar("carrying out") as carrying:
        async with app.reconciling(config, "aim apply", reading.step, notice=show.notice) as reconciler:
            tally = _Tally(carrying)
            await reconciler.settle()
            hooks = Hooks(agree=tally.watching(agree), progress=tally.tell)
            return await reconciler.cycle(asyncio.Event(), hooks)


class _Tally:
    """Counts what is done of what the plan has due."""

    def __init__(self, bar: show.Bar) -> None:
        self._bar = bar
        self._done = 0
        self._total = 0

    def watching(self, agree: Agreement) -> Agreement:
        """`agree`, overheard for the number of actions."""

        async def overheard(made: Plan) -> bool:
            self._total = len(made.due)
            return await agree(made)

        return overheard

    def tell(self, _: Outcome) -> None:
        """One more is done."""
        self._done += 1
        self._bar.step(self._done, self._total)


def _ask(count: int) -> bool:
    remedy = "add --yes, or apply a saved plan with --plan FILE --yes"
    return agrees(f"Carry out these {count} actions?", remedy)


def agrees(question: str, remedy: str) -> bool:
    """What somebody answers on the terminal. Raises AimError, with that remedy, if there is none."""
    if not sys.stdin.isatty():
        raise AimError("there is no terminal to ask on", remedy)
    answer = input(f"{question} [y/N] ")
    return answer.strip().lower() in {"y", "yes"}


def run(path: Path) -> int:
    config = load(path)
    from aim import run

    _run(run.run(config))
    return DONE


# -- what stands around a cycle --------------------------------------------------------------------------


def registration(path: Path, *, out: Path, single: bool, url: str | None) -> int:
    from aim.matrix.registration import registrations, write

    config = load(path)
    for written in write(registrations(app.tokens_of(config, url), single=single), out):
        show.say(f"wrote {written}")
    show.say("List them under app_service_config_files in the homeserver's configuration, and restart it.")
    return DONE


def check(path: Path) -> int:
    from aim.check import check as run_check
    from aim.matrix.check import Verdict

    found = _run(run_check(path, os.environ))
    show.findings(found)
    return ERROR if any(finding.verdict is Verdict.FAIL for finding in found) else DONE


def directory(path: Path, *, json: bool, ldif: Path | None, redact: bool) -> int:
    import json as json_

    from aim.directory.describe import to_json

    if ldif is not None:
        count = _run(errands.write_ldif(_load_to_read(path), ldif, redact=redact))
        show.say(f"wrote {count} entries to {ldif}")
        return DONE
    if redact:
        raise AimError("--redact goes with --ldif", "add --ldif FILE")
    found = _run(errands.read_directory(_load_to_read(path)))
    if json:
        sys.stdout.write(json_.dumps(to_json(found), indent=1, ensure_ascii=False) + "\n")
    else:
        show.say(show.directory(found))
    return DONE


def explain(path: Path, about: Sequence[str], *, user: str | None, everybody: bool, json: bool) -> int:
    import json as json_

    from aim.planner.explained import to_json, to_lines

    people = [word for word in about if word.startswith("@")] + ([user] if user is not None else [])
    rooms = [word for word in about if not word.startswith("@")]
    if len(people) > 1 or len(rooms) > 1 or not (people or rooms):
        raise AimError(
            "a question is about one person, one room, or one person in one room",
            "write `aim explain @evan:example.com engineering`; put a name of several words in quotes",
        )
    question = Question(next(iter(people), None), next(iter(rooms), None), everybody)
    found = _run(_explain(_load_to_read(path), question))
    if json:
        sys.stdout.write(json_.dumps(to_json(found), indent=1, ensure_ascii=False) + "\n")
    else:
        show.lines(to_lines(found))
    return DONE


async def _explain(config: Config, question: Question) -> Explanation:
    with show.Bar("reading rooms") as bar:
        return await errands.explain(config, question, bar.step)


def approve(path: Path, wanted: str, *, plan: Path | None, by: str | None) -> int:
    config = _load_to_read(path)
    text = _read(plan) if plan else None
    approved = _run(errands.approve(config, wanted, text, by or whoami()))
    for approval in approved:
        show.say(f"approved until {approval.until:%Y-%m-%d %H:%M} UTC: {approval.identity}")
    return DONE


def whoami() -> str:
    """Who decides: whoever became root to do so."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def rebind(path: Path, old: str | None, new: str | None) -> int:
    if old is None or new is None:
        raise AimError(
            "two names are wanted: the one known before, and the one in the directory now",
            "write `aim rebind OLD NEW`; after a switch of source `aim rebind --by-localpart`",
        )
    show.lines([_run(errands.rebind(_load_to_read(path), old, new))])
    return DONE


def rebind_all(path: Path, names: Sequence[str | None], *, yes: bool, even_missing: bool) -> int:
    if any(names):
        raise AimError("--by-localpart is about everybody", "leave the names out")
    return _run(_rebind_all(_load_to_read(path), yes=yes, even_missing=even_missing))


async def _rebind_all(config: Config, *, yes: bool, even_missing: bool) -> int:
    async with app.deciding(config) as (observer, decisions):
        found, source = await errands.find_rebinding(config, observer)
        show.lines([found.message])
        if found.exceeds_guard and not even_missing:
            show.refused(
                f"{len(found.missing)} of {found.known} known users are missing from the new source: nothing "
                "is recorded",
                "look at source in the configuration, and at `aim directory`; if they have all left, add "
                "--even-missing",
            )
            return HELD
        question = f"Rebind these {len(found.seen)} users?"
        if not yes and not await asyncio.to_thread(agrees, question, "add --yes"):
            show.say("nothing was changed")
            return DONE
        await decisions.rebind(found.seen, found.forget, source)
        show.say(f"{len(found.seen)} users are known by their new ids")
        return DONE


def demo(*, keep: bool) -> int:
    from aim.demo.story import tell

    try:
        return _run(tell(keep=keep))
    except KeyboardInterrupt:
        if not keep:
            raise
        return DONE
