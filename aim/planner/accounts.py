"""Accounts follow people: what is to be locked, unlocked, erased or set. Pure.

In: a world. Out: actions and problems. Who left is known from `desired.leaving`; what their account is like
from `observed`; since when they wait from `recorded`. Nothing is done where accounts can't be managed, and
nothing at all where the configuration asks for nothing of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aim.directory.model import Problem, Severity
from aim.planner.actions import AnyAccountAction
from aim.planner.attributes import attributes
from aim.planner.leavers import SUBJECT, Leavers, listed
from aim.planner.world import World


@dataclass(frozen=True, slots=True)
class AccountChanges:
    """What differs, before any guard has judged it."""

    actions: tuple[AnyAccountAction, ...] = ()
    problems: tuple[Problem, ...] = ()


def account_changes(world: World) -> AccountChanges:
    """All that is to be done about accounts."""
    rules, observed = world.desired.accounts, world.observed.known_accounts
    if rules is None:
        return AccountChanges((), tuple(_left_alone(world)))
    if observed is None:
        return AccountChanges()
    if observed.refused:
        refused = Problem(Severity.ERROR, "accounts", observed.refused)
        return AccountChanges((), (refused, *_not_locked(world)))
    set_, problems = attributes(world, rules, observed)
    queue = Leavers(world, rules, observed)
    actions: list[AnyAccountAction] = [*set_, *queue.returning()]
    if rules.deprovisions:
        actions.extend(queue.leaving())
    return AccountChanges(tuple(actions), (*problems, *queue.problems()))


def _not_locked(world: World) -> Iterator[Problem]:
    """Who left since accounts can't be managed. Nobody unless deprovisioning is on."""
    waiting = world.roster.people(queued.localpart for queued in world.recorded.queue.values())
    left = world.desired.leaving.stays - waiting
    if left:
        names = [world.observed.mxid(name) for name in world.roster.localparts(left)]
        yield Problem(
            Severity.WARNING,
            SUBJECT,
            f"{len(names)} of those known left the directory, and those of them who have an account are not "
            f"locked, nor removed from rooms, as accounts can't be managed: {listed(names)}",
        )


def _left_alone(world: World) -> Iterator[Problem]:
    """Nothing is asked for of accounts any more, and some wait that we locked."""
    ours = [queued for queued in world.recorded.queue.values() if queued.ours and queued.restored_by is None]
    if ours:
        names = sorted(world.observed.mxid(queued.localpart) for queued in ours)
        yield Problem(
            Severity.WARNING,
            SUBJECT,
            f"{len(ours)} accounts are locked by aim, and without `userProvisioner` in the configuration "
            f"nobody unlocks them, even if their people are back: {listed(names)}. Put it back; with "
            "deprovisioning.enabled: false nobody else is locked, and `aim queue restore` unlocks who is to "
            "stay",
        )
