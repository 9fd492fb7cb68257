"""`aim check` of what `aim` itself has: its database, the queue, mail, and the events of a running daemon."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

from aim import app
from aim.check.words import count, failed
from aim.config.root import Config
from aim.directory.roster import Roster
from aim.errors import AimError
from aim.matrix.check import Finding, Verdict
from aim.notify.mailer import check_templates
from aim.notify.settings import MailSettings
from aim.notify.smtp import try_server
from aim.planner import fights
from aim.store import open_audit, open_mirror, open_reader
from aim.world.recorded import Recorded


async def database_findings(config: Config) -> list[Finding]:
    """The database, and what it says of people and of what is held."""
    url = app.database_url(config)
    kind = "Postgres answers" if url else f"embedded Postgres in {config.data_dir}"
    try:
        async with open_reader(url, config.data_dir) as reader:
            recorded = await reader.load(Roster(), app.now())
    except AimError as error:
        return [failed("database", error)]
    if recorded.fresh:
        return [Finding("database", Verdict.OK, f"{kind}, nothing is recorded yet")]
    queue = queue_findings(recorded, config, app.now())
    if recorded.recovery_since is not None:
        return [
            Finding(
                "database",
                Verdict.WARN,
                f"{kind}, in recovery since {recorded.recovery_since:%Y-%m-%d %H:%M} UTC: nothing is removed",
                "look at `aim plan`; if its removals are right, approve them with `aim approve DIGEST`",
            ),
            *queue,
        ]
    known = sum(seen.gone_since is None for seen in recorded.seen.values())
    text = f"{kind}, {len(recorded.rooms)} rooms and {known} users are known"
    return [Finding("database", Verdict.OK, text), *queue, *_held(recorded)]


def queue_findings(recorded: Recorded, config: Config, now: datetime) -> Iterator[Finding]:
    """Who waits in the deprovisioning queue, and whether anything comes of it. `now` in UTC."""
    rules, queue = config.user_provisioner, recorded.queue.values()
    waiting = [entry for entry in queue if entry.restored_by is None]
    if rules is None or not rules.deprovisioning.enabled:
        if waiting:
            who = count(len(waiting), "person waits", "people wait")
            if rules is None:
                lacking = "without `userProvisioner` nobody is unlocked or erased"
                remedy = "put `userProvisioner` back into the configuration"
            else:
                lacking = "deprovisioning is off: nobody is erased"
                remedy = "set userProvisioner.deprovisioning.enabled, or see `aim queue restore`"
            yield Finding("queue", Verdict.WARN, f"{who}, locked, and {lacking}", remedy)
        return
    text = count(len(waiting), "person waits", "people wait") if waiting else "nobody waits"
    if kept := len(queue) - len(waiting):
        text += f", {kept} restored"
    falling_due = [entry.due_at for entry in waiting if entry.held_by is None]
    if falling_due:
        at = min(falling_due)
        text += f"; the first {'was' if at <= now else 'is'} due on {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    yield Finding("queue", Verdict.OK, text)


def _held(recorded: Recorded) -> Iterator[Finding]:
    if recorded.held:
        kinds = Counter(identity.split(" ", 1)[0] for identity in recorded.held)
        what = ", ".join(f"{count} × {kind}" for kind, count in sorted(kinds.items()))
        text = f"a guard held {what} when a cycle last looked"
        remedy = "look at `aim plan`; if it is right, approve it with `aim approve DIGEST`"
        yield Finding("guards", Verdict.WARN, text, remedy)


async def mail_findings(settings: MailSettings) -> list[Finding]:
    """Whether mail can be written and sent."""
    where = f"{settings.smtp.host}:{settings.smtp.port}"
    try:
        warnings = check_templates(settings)
        await try_server(settings.smtp)
    except AimError as error:
        return [failed("mail", error)]
    found = [Finding("mail", Verdict.WARN, warning) for warning in warnings]
    return [*found, Finding("mail", Verdict.OK, f"{where} answers, and lets us send")]


async def stream_findings(config: Config) -> AsyncIterator[Finding]:
    """Whether a running daemon hears the homeserver, and fights with somebody. Raises StoreError."""
    url, data_dir = app.database_url(config), config.data_dir
    if "listen" not in config.model_fields_set:
        yield Finding(
            "stream",
            Verdict.OK,
            "not wanted: without `listen` a change in Matrix is corrected by the next cycle, within an hour",
        )
    else:
        async with open_mirror(url, data_dir) as mirror:
            if mirror is None:
                text = "aim run does not run: whether events of the homeserver arrive is seen when it does"
                yield Finding("stream", Verdict.OK, text)
            elif (await mirror.load()).facts.is_current:
                yield Finding("stream", Verdict.OK, "events of the homeserver arrive")
            else:
                yield Finding(
                    "stream",
                    Verdict.FAIL,
                    "events of the homeserver don't arrive at aim run; it reads everything anew instead",
                    "its log names the cause: the registration's `url`, `listen`, or appservice.hs_token",
                )
    async with open_audit(url, data_dir) as audit:
        for fight in await audit.repeated(app.now() - fights.WINDOW, fights.MOST):
            yield Finding(
                "fight",
                Verdict.WARN,
                f"{fight.type} of {fight.target} in {fight.room} was done {fight.times} times in ten minutes",
                "find out who, or what other program, changes it back each time",
            )
