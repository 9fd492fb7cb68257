"""`aim demo`: the main job on a real homeserver, told in the terminal and checked at every step.

Each step runs an `aim` command as a person would and looks at the homeserver as the people in it do. A step
that is not as it should be ends the demo with exit code 1.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from aim.demo.organisation import Organisation, harbour_works
from aim.demo.setting import ADMIN, SERVER_NAME, Setting, setting
from aim.errors import AimError

CHANGES = 2
"""Exit code of `--detailed-exitcode` when there are changes."""
MOVES = "hana"
PROMOTED = "sami"
LEAVES = "bruno"


class DemoError(AimError):
    """A step was not as it should be."""


async def tell(*, keep: bool) -> int:
    """The whole story. Gives the exit code; with `keep`, returns when the person presses Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="aim-demo-", ignore_cleanup_errors=True) as folder:
        # Postgres may run as a user of its own, who has to get in.
        Path(folder).chmod(0o755)
        organisation = harbour_works()
        _title("A directory of 40 people, an empty Synapse")
        async with setting(Path(folder), organisation) as stage:
            await _first_time(stage)
            changed = await _changes(stage, organisation)
            await _nothing_to_do(stage, "And a last time: nothing to do")
            _say(f"\nAll as it should be, for {len(changed.people)} people.", "bold green")
            if keep:
                await _leave_running(stage)
    return 0


async def _first_time(stage: Setting) -> None:
    _title("aim check: is everything in place?")
    _expect(await stage.aim("check") == 0, "aim check finds no fault")
    _title("aim plan: what would happen, and why. Nothing is changed")
    code = await stage.aim("plan", "--detailed-exitcode", "--out", str(stage.directory / "first.json"))
    _expect(code == CHANGES, "the plan has changes")
    _title("aim apply: exactly that plan")
    code = await stage.aim("apply", "--yes", "--plan", str(stage.directory / "first.json"))
    _expect(code == 0, "everything was done")
    await _nothing_to_do(stage, "The second time there is nothing to do")
    invites = await stage.people.accept_all()
    _say(f"\nThe people accept their {invites} invites.", "dim")


async def _changes(stage: Setting, before: Organisation) -> Organisation:
    moves, promoted, leaves = (_uid(before, name) for name in (MOVES, PROMOTED, LEAVES))
    after = before.moved(moves, "sales").promoted(promoted, "support-moderators").left(leaves)
    _title("The directory changes")
    _say(f"{moves} moves to sales, {promoted} becomes a moderator of support, {leaves} leaves.")
    stage.give(after)
    path = stage.directory / "second.json"
    code = await stage.aim("plan", "--detailed-exitcode", "--out", str(path))
    _expect(code == CHANGES, "the plan has changes")
    planned = {(action["type"], action["target"], action["room"]) for action in _actions(path)}
    for expected in (
        ("kick", _mxid(moves), "engineering"),
        ("invite", _mxid(moves), "sales"),
        ("set_power_level", _mxid(promoted), "support"),
        ("kick", _mxid(leaves), "harbour"),
    ):
        _expect(expected in planned, f"the plan says: {' '.join(map(str, expected))}")
    _title("aim apply")
    _expect(await stage.aim("apply", "--yes") == 0, "everything was done")
    await _look(stage, moves, promoted, leaves)
    return after


async def _look(stage: Setting, moves: str, promoted: str, leaves: str) -> None:
    """Asks the homeserver, as the people themselves."""
    names = await stage.people.rooms_of(moves)
    _expect(names.get("Sales") == "invite", f"{moves} is invited to Sales")
    _expect("Engineering" not in names, f"{moves} is no longer in Engineering")
    _expect(names.get("Harbour Works") == "join", f"{moves} is still in Harbour Works")
    _expect(not await stage.people.rooms_of(leaves), f"{leaves} is in no room any more")
    _expect(
        await stage.people.level_in(promoted, "Support", _mxid(promoted)) == 50,
        f"{promoted} has level 50 in Support",
    )


async def _nothing_to_do(stage: Setting, title: str) -> None:
    _title(title)
    _expect(await stage.aim("plan", "--detailed-exitcode") == 0, "the plan is empty")


async def _leave_running(stage: Setting) -> None:
    folder = stage.directory
    _title("It keeps running; Ctrl-C ends it and removes everything")
    _say(f"homeserver  {stage.synapse.base_url}   (server name {SERVER_NAME})")
    _say(f"logins      {ADMIN}, or any uid of {folder / 'directory.ldif'}; password {stage.password}")
    _say(f"try         aim plan -c {folder / 'config.yaml'}, after a change of directory.ldif")
    await asyncio.Event().wait()


# -- telling and checking --------------------------------------------------------------------------------


def _title(text: str) -> None:
    _console().print()
    _console().print(Rule(Text(text, style="bold"), align="left"))


def _say(text: str, style: str = "") -> None:
    _console().print(Text(text, style=style))


def _expect(fulfilled: bool, what: str) -> None:
    if not fulfilled:
        raise DemoError(
            f"the demo did not go as it should: {what}", "the output above shows what happened instead"
        )
    _say(f"✓ {what}", "green")


def _console() -> Console:
    return Console(highlight=False)


def _actions(path: Path) -> list[Mapping[str, object]]:
    document = json.loads(path.read_text(encoding="utf-8"))
    actions: list[Mapping[str, object]] = document["actions"]
    return actions


def _uid(organisation: Organisation, given_name: str) -> str:
    return next(person.uid for person in organisation.people if person.uid.startswith(f"{given_name}."))


def _mxid(uid: str) -> str:
    return f"@{uid}:{SERVER_NAME}"
