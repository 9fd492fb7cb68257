"""What commands do beside a cycle: read a directory, write an export, approve, explain, rebind, the queue.

Stands above `app`, whose wiring it uses; below the command line, which only asks and shows.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

from aim.app import (
    database_url,
    deciding,
    now,
    observing,
    opened_source,
    pushed,
    rules_of,
    source_of,
)
from aim.bridges.ldif.writer import to_ldif
from aim.config import sources
from aim.config.root import Config
from aim.desired.queueing import Decision, NotQueuedError, QueueChange, not_queued
from aim.desired.rebind import SourceRebinding
from aim.desired.rebind import rebind as settle_rebind
from aim.desired.rebind import rebind_all as settle_rebind_all
from aim.desired.waiting import Waiting, waiting
from aim.directory.model import Directory
from aim.directory.redact import in_use, redacted
from aim.directory.roster import Roster
from aim.errors import AimError, ConfigError, PlanError
from aim.planner import approval
from aim.planner.document import digest, digest_of, read_saved
from aim.planner.explain import Explanation, Question, scope_of
from aim.planner.explain import explain as answer
from aim.planner.plan import make_plan
from aim.ports import HasEntries
from aim.ports.scim import ScimGrowth
from aim.reconciler import Observer
from aim.store import open_accounts, open_audit, open_decisions, open_reader
from aim.world.accounts import Account
from aim.world.recorded import Approval, Queued

Progress = Callable[[int, int], None]


async def read_directory(config: Config) -> Directory:
    """`aim directory`: what the bridge reads, nothing else asked."""
    async with opened_source(config) as source:
        return await source.read(Roster())


async def write_ldif(config: Config, path: Path, *, redact: bool) -> int:
    """`aim directory --ldif`: writes what was read, with the attributes in use. Gives the number of entries.

    Only the owner may read the file, whoever could read one that was there before.

    Raises SourceError, ConfigError for a source without entries, AimError if the file can't be written.
    """
    configured, source = config.source, source_of(config)
    if not isinstance(source, HasEntries) or not isinstance(
        configured, sources.LdifSource | sources.LdapSource
    ):
        raise ConfigError(f"source.type {source.type} has no entries to write", "leave --ldif out")
    rules = rules_of(configured.attributes)
    entries = await source.entries()
    kept = redacted(entries, rules) if redact else in_use(entries, rules)
    try:
        with _private(path) as file:
            file.writelines(to_ldif(kept))
    except OSError as error:
        raise AimError(
            f"{path} can't be written: {error.strerror}", "name another file with --ldif"
        ) from error
    return len(entries)


def _private(path: Path) -> BinaryIO:
    """A file to write to from its beginning, without rights for anybody but its owner. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    file = os.fdopen(descriptor, "wb")
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        try:
            # Before anything is written, and before what was there is lost.
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & 0o600)
            os.ftruncate(descriptor, 0)
        except OSError:
            file.close()
            raise
    return file


async def approve(config: Config, wanted: str, saved: str | None, by: str) -> tuple[Approval, ...]:
    """`aim approve`: records approvals for what the plan with digest `wanted` holds.

    The plan is `saved` (its JSON) if given, else a recorded cycle's, else made anew. Raises PlanError if none
    of them has that digest, or it holds nothing.
    """
    async with deciding(config) as (observer, decisions):
        recorded = None if saved else await decisions.plan_by_digest(wanted)
        if recorded is not None:
            held, found = held_of_recorded(recorded), wanted
        else:
            held, found = await _held(observer, saved)
        if not approval.names(wanted, found):
            raise PlanError(
                f"the plan's digest is {found}, not {wanted}",
                "look at `aim plan` again, and approve the digest that it prints",
            )
        time = now()
        approved = approval.approvals(held, by, time)
        await decisions.approve(approved, found, time)
        return approved


async def _held(observer: Observer, text: str | None) -> tuple[Iterable[str], str]:
    """What a plan holds, and its digest."""
    if text is not None:
        plan = read_saved(text)
        return plan.held, plan.digest
    made = await observer.plan()
    return (action.identity for action in made.held), digest(made)


def held_of_recorded(text: str) -> Iterable[str]:
    """What a plan of ours holds. It may name people who were erased by their pseudonyms, and then the digest
    under which it is recorded is not that of the text any more. Raises PlanError."""
    document = json.loads(text)
    return read_saved(json.dumps({**document, "digest": digest_of(document)})).held


async def explain(config: Config, question: Question, progress: Progress | None = None) -> Explanation:
    """`aim explain`: how somebody stands to a room, and why. Changes nothing.

    Raises AimError, also for somebody or a room that nobody knows.
    """
    async with observing(config, progress) as observer:
        world = await observer.world()
        plan = make_plan(world)
        scope = scope_of(world, plan, question)
        async with open_audit(database_url(config), config.data_dir) as audit:
            recorded = await audit.about(scope.rooms, scope.people)
    return answer(world, plan, scope, recorded)


async def rebind(config: Config, old: str, new: str) -> str:
    """`aim rebind`: records that both names are one person. Gives a line that says what it did."""
    async with deciding(config) as (observer, decisions):
        recorded = await observer.recorded()
        found = await observer.directory(recorded)
        rebinding = settle_rebind(found, recorded, config.homeserver.server_name, old, new)
        await decisions.rebind([rebinding.seen], rebinding.forget)
        return rebinding.message


async def find_rebinding(config: Config, observer: Observer) -> tuple[SourceRebinding, str]:
    """`aim rebind --by-localpart`: who is who in the new source, and the type of that. Raises AimError."""
    recorded = await observer.recorded()
    directory = await observer.directory(recorded)
    return settle_rebind_all(directory, recorded, config.homeserver.server_name), directory.source


# -- the deprovisioning queue ----------------------------------------------------------------------------

Decide = Callable[[Mapping[str, Queued], Decision], QueueChange]
"""What a person wants of the queue."""


def erases(config: Config) -> bool:
    """Whether anybody is locked and erased at all."""
    accounts = config.user_provisioner
    return accounts is not None and accounts.deprovisioning.enabled


async def read_queue(config: Config, within: timedelta | None) -> Waiting:
    """`aim queue list`: who waits, all or what falls due `within` that time. Only the database is asked."""
    async with open_reader(database_url(config), config.data_dir) as recorded:
        time = now()
        found = await recorded.load(Roster(), time)
    return waiting(
        found.queue,
        time,
        server_name=config.homeserver.server_name,
        is_carried_out=erases(config),
        within=within,
    )


async def remembered(config: Config, localpart: str) -> tuple[Account | None, Queued | None]:
    """The account of somebody who left as it was last read, and their entry of the queue, where there are
    any. Only the database is asked."""
    url, data_dir = database_url(config), config.data_dir
    async with open_accounts(url, data_dir) as accounts:
        stored = (await accounts.load()).accounts.get(localpart) if accounts is not None else None
    async with open_reader(url, data_dir) as reader:
        queue = (await reader.load(Roster(), now())).queue.values()
    queued = next((entry for entry in queue if entry.localpart == localpart), None)
    return stored.account if stored is not None else None, queued


async def change_queue(config: Config, decide: Decide, by: str) -> QueueChange:
    """The other commands of `aim queue`: records what `by` decides. Raises AimError."""
    async with open_decisions(database_url(config), config.data_dir) as decisions:
        decision = Decision(config.homeserver.server_name, by, now())
        try:
            return await decisions.change_queue(lambda queue: decide(queue, decision), decision.now)
        except NotQueuedError as error:
            recorded = await decisions.load(Roster(), decision.now)
            raise not_queued(error, recorded, decision.server_name) from None


# -- what is pushed by SCIM ------------------------------------------------------------------------------


async def scim_growth(config: Config) -> ScimGrowth:
    """`aim scim status`. Raises StoreError, and ConfigError for another source."""
    async with pushed(config, read_only=True) as store:
        return await store.growth()


async def set_scim_ready(config: Config, *, ready: bool) -> None:
    """`aim scim ready` and `aim scim filling`; a running daemon hears of it. Raises as above."""
    async with pushed(config) as store:
        await store.set_ready(now() if ready else None)
