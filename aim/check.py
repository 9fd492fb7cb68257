"""`aim check`: tries everything for real, reads only. One finding per question, each with its remedy.

Stands beside `app`, whose wiring it uses; the questions about the homeserver are in `matrix.check`.
"""

from __future__ import annotations

import re
import ssl
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from aim import app
from aim.config.load import load_config
from aim.config.root import Config
from aim.config.sources import LdapSource, MsGraphSource, ScimSource
from aim.config.spaces import SpaceConfig
from aim.desired.unknown import unknown_group
from aim.directory.model import Directory, GroupKind, Problem, Severity
from aim.directory.roster import Roster
from aim.errors import AimError, ConfigError
from aim.matrix.check import Finding, Verdict
from aim.matrix.check import check as check_homeserver
from aim.matrix.peers import PeerFacts, peer_facts
from aim.notify.mailer import check_templates
from aim.notify.settings import MailSettings
from aim.notify.smtp import try_server
from aim.planner import fights
from aim.scim import refuse_unreachable, unapplied, username_of
from aim.store import open_audit, open_mirror, open_reader
from aim.world.recorded import Recorded

if TYPE_CHECKING:
    from aim.bridges.ldap.describe import Description
    from aim.bridges.ldap.tls import TlsFacts
    from aim.bridges.msgraph.describe import Description as GraphDescription

_SHORTEST = 20
"""Fewer characters of a token are warned of."""
_SOON = timedelta(days=30)
"""How long before its end a certificate is warned of."""

_NUMBER = re.compile(r"\d+")
_ALIKE = 5
"""So many problems of a kind are shown; further ones are counted."""

_UNUSABLE = "Let source.attributes.uid name the attribute that has the user names: everybody needs one."
_NOBODY = "Check that the source holds people, and that we may see them: nobody would be invited anywhere."

_KINDS = {
    GroupKind.DOMAIN: ("domain", "domains"),
    GroupKind.OU: ("organisational unit", "organisational units"),
    GroupKind.GROUP: ("group", "groups"),
}
_EMPTY = {
    "uid": (
        "they are left out",
        "Let source.attributes.uid name an attribute that all have, or leave these out by source.filter.",
    ),
    "id": (
        "their DN stands in, so that somebody who is renamed or moved needs `aim rebind`",
        "Let the account read entryUUID (OpenLDAP), objectGUID (Active Directory) or nsUniqueId (389ds), or"
        " set source.attributes.id.",
    ),
}
"""What every user should have: what comes of it where not, and the remedy."""


async def check(path: Path, environ: Mapping[str, str]) -> list[Finding]:
    """Everything, in the order in which one thing needs the other. Raises nothing that a finding can say."""
    try:
        loaded = load_config(path, environ)
    except ConfigError as error:
        return [_failed("config", error)]
    config = loaded.config
    findings = [Finding("config", Verdict.OK, f"{path} is well-formed")]
    findings += [Finding("config", Verdict.WARN, warning) for warning in loaded.warnings]
    findings += await _source(config)
    versions = [
        room.properties.room_version
        for room in config.provisioner.default_rooms
        if room.properties.room_version is not None
    ]
    try:
        findings += await check_homeserver(
            app.homeserver_of(config),
            versions,
            manages_accounts=config.user_provisioner is not None,
            registers_users=config.registers_users,
        )
    except AimError as error:
        findings.append(_failed("homeserver", error))
    findings += await _database(config)
    settings = app.mail_settings(config)
    if settings is not None:
        findings += await _mail(settings)
    try:
        findings += [finding async for finding in _stream(config)]
    except AimError as error:
        findings.append(_failed("stream", error))
    try:
        findings += [finding async for finding in _peers(config)]
    except AimError as error:
        findings.append(_failed("federation", error))
    return findings


async def _source(config: Config) -> list[Finding]:
    findings: list[Finding] = []
    try:
        if isinstance(config.source, LdapSource):
            found = await app.ldap_source_of(config.source).describe()
            findings += ldap_findings(found, config.source, app.now())
            if found.error is not None:
                return findings
        if isinstance(config.source, MsGraphSource):
            findings += await _graph(config.source)
            if any(finding.verdict is Verdict.FAIL for finding in findings):
                return findings
        if isinstance(config.source, ScimSource):
            refuse_unreachable(config, config.source)
            username_of(config.source)
            findings += guessable(config.source)
            findings += await pushed_findings(config)
            findings += [finding async for finding in _outside(config, config.source)]
        async with app.opened_source(config) as source:
            directory = await source.read(Roster())
    except AimError as error:
        return [*findings, _failed("source", error)]
    findings += directory_findings(directory)
    findings += _unknown_groups(directory, config)
    return findings


# -- SCIM ------------------------------------------------------------------------------------------------


async def pushed_findings(config: Config) -> list[Finding]:
    """How the store that others fill grows, and whether its localparts are up to date. Raises StoreError."""
    async with app.pushed(config, read_only=True) as store:
        growth = await store.growth()
    last = f"last written at {growth.last_write:%Y-%m-%d %H:%M} UTC" if growth.last_write else "never written"
    text = f"{growth.users} users ({growth.active} active), {growth.groups} groups, {last}"
    if growth.ready_since is None:
        remedy = "when all are there, say so with `aim scim ready`: until then nobody is removed"
        found = Finding("scim", Verdict.WARN, f"still filling: {text}", remedy)
    else:
        found = Finding("scim", Verdict.OK, text)
    warning = await unapplied(config)
    return [found] if warning is None else [found, Finding("scim", Verdict.WARN, warning)]


def guessable(source: ScimSource) -> Iterator[Finding]:
    """Tokens that are too short for what they open."""
    tokens = [grant.token.get_secret_value() for grant in source.client.grants if grant.token is not None]
    short = sum(len(token) < _SHORTEST for token in tokens)
    if short:
        which = "the client's token has" if len(tokens) == 1 else f"{short} of {len(tokens)} tokens have"
        yield Finding(
            "scim",
            Verdict.WARN,
            f"{which} fewer than {_SHORTEST} characters: whoever guesses one is let in",
            "`aim scim token new` makes one that nobody guesses",
        )


async def _outside(config: Config, source: ScimSource) -> AsyncIterator[Finding]:
    """Whether clients find it by its public URL, if that is configured. Raises StoreError."""
    url = source.public_url
    if url is None:
        return
    if url.startswith("http:"):
        yield Finding(
            "scim",
            Verdict.WARN,
            f"{url} is not encrypted: who is in between can read tokens and people, and use the tokens",
            "let what is in front of aim serve https, and write that into source.public_url",
        )
    async with open_mirror(app.database_url(config), config.data_dir) as mirror:
        if mirror is None:
            text = f"aim run does not run: whether {url} leads to it is seen when it does"
            yield Finding("scim", Verdict.OK, text)
            return
    # Only who is pushed to needs it.
    from aim.bridges.scim.outside import try_outside

    try:
        yield Finding("scim", Verdict.OK, await try_outside(url, reading_token(source)))
    except AimError as error:
        yield _failed("scim", error)


def reading_token(source: ScimSource) -> str | None:
    """A token that may read users; None if there is none in the configuration."""
    reading = {"*:*", "*:users", "read:*", "read:users"}
    tokens = (grant.token for grant in source.client.grants if not reading.isdisjoint(grant.roles))
    return next((token.get_secret_value() for token in tokens if token is not None), None)


# -- Microsoft Graph -------------------------------------------------------------------------------------


async def _graph(source: MsGraphSource) -> list[Finding]:
    # msal takes its time to import.
    from aim.bridges.msgraph.describe import describe

    found = await describe(app.graph_settings_of(source))
    return list(graph_findings(found, app.now(), has_webhook=source.webhook_url is not None))


def graph_findings(found: GraphDescription, now: datetime, *, has_webhook: bool = False) -> Iterator[Finding]:
    """What was found of Microsoft Graph, as far as things went well, and what ended it. `now` in UTC;
    `has_webhook`: Graph is to tell of changes."""
    if found.is_logged_in:
        yield _credential(found, now)
        yield from _permissions(found)
    if has_webhook and found.unnoticed:
        yield Finding(
            "webhook_url",
            Verdict.WARN,
            f"Graph tells of users only: for groups {found.unnoticed} is missing",
            f"Give the app the permission {found.unnoticed} instead of GroupMember.Read.All, or let groups"
            " wait for check_interval_seconds.",
        )
    if found.error is not None:
        yield _failed("graph" if found.is_logged_in else "login", found.error)
    elif not found.missing:
        counts = [(found.users, "user", "users"), (found.groups, "group", "groups")]
        told = [_count(number, *words) for number, *words in counts if number is not None]
        yield Finding(
            "graph", Verdict.OK, f"{found.organisation}: {', '.join(told) or 'Graph does not count'}"
        )


def _credential(found: GraphDescription, now: datetime) -> Finding:
    message = f"logged in with {found.credential}"
    ends = found.credential_ends
    if ends is None:
        return Finding(
            "login", Verdict.OK, f"{message}; when it ends {found.untold}" if found.untold else message
        )
    message += f", which ends on {ends.astimezone(UTC):%Y-%m-%d}"
    if ends - now < _SOON:
        return Finding(
            "login",
            Verdict.WARN,
            f"{message}, in {max(0, (ends - now).days)} days",
            "Make a new one before then, in the Entra admin center under App registrations, Certificates &"
            " secrets: afterwards nothing can be read.",
        )
    return Finding("login", Verdict.OK, message)


def _permissions(found: GraphDescription) -> Iterator[Finding]:
    if found.roles is None:
        yield Finding("permissions", Verdict.OK, "the token does not say what it permits")
    for role in found.missing:
        yield Finding(
            "permissions",
            Verdict.FAIL,
            f"{role} is missing",
            f"Add the application permission {role} in the Entra admin center under App registrations, API"
            " permissions, and grant admin consent.",
        )
    for role in found.superfluous:
        yield Finding(
            "permissions",
            Verdict.WARN,
            f"the app has {role}, which lets it change things: aim never does",
            f"Take {role} away from the app under API permissions, unless something else needs it.",
        )
    if found.roles and not found.missing and not found.superfluous:
        yield Finding("permissions", Verdict.OK, ", ".join(found.roles))


# -- LDAP ------------------------------------------------------------------------------------------------


def ldap_findings(found: Description, source: LdapSource, now: datetime) -> list[Finding]:
    """What was found of an LDAP source, as far as things went well, and what ended it."""
    findings = [*_connection(found, source, now), *_entries(found, source)] if found.uri else []
    if found.error is not None:
        findings.append(_failed(_broken(found), found.error))
    elif found.method:
        message = f"asked for every {source.check_interval_seconds:g} s, by {found.method}"
        findings.append(Finding("changes", Verdict.OK, message))
    return findings


def _broken(found: Description) -> str:
    """The question at which it ended."""
    if not found.uri:
        return "ldap"
    if not found.entries:
        return "base"
    return "changes" if found.empty else "entries"


def _connection(found: Description, source: LdapSource, now: datetime) -> Iterator[Finding]:
    for cause in found.passed_over:
        yield Finding(
            "ldap", Verdict.WARN, f"passed over: {cause}", "Mend it, or take that server out of source.uri."
        )
    server = ", ".join(filter(None, (found.vendor, found.host)))
    message = f"connected to {found.uri} at {found.address}" + (f": {server}" if server else "")
    yield Finding("ldap", Verdict.OK, message)
    for cause, remedy in found.warnings:
        yield Finding("ldap", Verdict.WARN, cause, remedy)
    if found.tls is not None:
        yield _tls(found.tls, now)
    elif source.bind_password is None:
        yield Finding(
            "tls",
            Verdict.WARN,
            "the connection is not encrypted: who is in between can read and change what the server says",
            "Use an ldaps:// uri, or set source.start_tls.",
        )
    yield Finding("login", Verdict.OK, f"logged in as {found.bound_as}")


def _tls(facts: TlsFacts, now: datetime) -> Finding:
    ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(facts.not_after), UTC)
    message = (
        f"{facts.version} with {facts.cipher}; the certificate is issued by {facts.issuer or 'nobody named'}"
        f" and ends on {ends:%Y-%m-%d}"
    )
    if ends - now < _SOON:
        return Finding(
            "tls",
            Verdict.WARN,
            f"{message}, in {max(0, (ends - now).days)} days",
            "Renew the server's certificate before then: afterwards nothing can be read.",
        )
    return Finding("tls", Verdict.OK, message)


def _entries(found: Description, source: LdapSource) -> Iterator[Finding]:
    if not found.entries:
        return
    yield Finding("base", Verdict.OK, f"{found.entries} entries can be read below {source.base}")
    if not found.empty:
        return
    counts = [_count(found.users, "user", "users")]
    counts += [_count(found.containers.get(kind, 0), *words) for kind, words in _KINDS.items()]
    if found.users:
        yield Finding("entries", Verdict.OK, ", ".join(counts))
        yield from _attributes(found)
    else:
        yield Finding(
            "entries",
            Verdict.WARN,
            ", ".join(counts),
            "Check source.base and source.filter, and that the account may see people.",
        )


def _attributes(found: Description) -> Iterator[Finding]:
    """Which of the attributes in use users lack. Without a name or an address one can live."""
    complete = []
    for purpose, lacking in found.empty.items():
        what, _, names = purpose.partition(": ")
        message = f"{lacking} of {found.users} users without {what} ({names})"
        if not lacking:
            complete.append(what)
        elif what in _EMPTY:
            consequence, remedy = _EMPTY[what]
            yield Finding("attributes", Verdict.WARN, f"{message}: {consequence}", remedy)
        elif lacking == found.users:
            remedy = f"Check source.attributes.{what}, and that the account may read that attribute."
            yield Finding("attributes", Verdict.WARN, message, remedy)
        else:
            yield Finding("attributes", Verdict.OK, message)
    if complete:
        yield Finding("attributes", Verdict.OK, f"every user has: {', '.join(complete)}")


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


# -- what holds for all sources --------------------------------------------------------------------------


def directory_findings(directory: Directory) -> Iterator[Finding]:
    """What was read, by any bridge, and what a person should know about it."""
    disabled = sum(not user.active for user in directory.users)
    counts = [_count(len(directory.users), "user", "users"), f"{disabled} disabled"]
    counts.append(_count(len(directory.groups), "group", "groups"))
    message = f"{', '.join(counts)} from {directory.source}"
    if directory.users:
        yield Finding("source", Verdict.OK, message)
    elif directory.unresolved:
        message += f", and {_count(len(directory.unresolved), 'person', 'people')} who can't be made a user"
        yield Finding("source", Verdict.FAIL, message, _UNUSABLE)
    else:
        yield Finding("source", Verdict.WARN, message, _NOBODY)
    yield from _problems(directory)


def _problems(directory: Directory) -> Iterator[Finding]:
    """Of each kind the first few: a wrong key in the configuration is a problem of everybody."""
    alike: dict[str, list[Problem]] = defaultdict(list)
    for problem in directory.problems:
        if problem.severity is not Severity.INFO:
            kind = re.split("[:;]", _NUMBER.sub("", problem.message), maxsplit=1)[0]
            alike[kind].append(problem)
    for problems in alike.values():
        for problem in problems[:_ALIKE]:
            yield Finding("source", Verdict.WARN, f"{problem.subject}: {problem.message}")
        if len(problems) > _ALIKE:
            message = f"and {len(problems) - _ALIKE} more like these"
            yield Finding("source", Verdict.WARN, message, "`aim directory` shows all of them.")


def _unknown_groups(directory: Directory, config: Config) -> Iterator[Finding]:
    for space in _all(config.spaces):
        for group in space.groups:
            if group.external_id and not directory.find(group.external_id):
                problem = unknown_group(directory, space.id, group.external_id)
                yield Finding("spaces", Verdict.WARN, f"{problem.subject}: {problem.message}")


def _all(spaces: tuple[SpaceConfig, ...]) -> Iterator[SpaceConfig]:
    for space in spaces:
        yield space
        yield from _all(space.subspaces)


async def _database(config: Config) -> list[Finding]:
    url = app.database_url(config)
    kind = "Postgres answers" if url else f"embedded Postgres in {config.data_dir}"
    try:
        async with open_reader(url, config.data_dir) as reader:
            recorded = await reader.load(Roster(), app.now())
    except AimError as error:
        return [_failed("database", error)]
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
            who = _count(len(waiting), "person waits", "people wait")
            if rules is None:
                lacking = "without `userProvisioner` nobody is unlocked or erased"
                remedy = "put `userProvisioner` back into the configuration"
            else:
                lacking = "deprovisioning is off: nobody is erased"
                remedy = "set userProvisioner.deprovisioning.enabled, or see `aim queue restore`"
            yield Finding("queue", Verdict.WARN, f"{who}, locked, and {lacking}", remedy)
        return
    text = _count(len(waiting), "person waits", "people wait") if waiting else "nobody waits"
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


async def _mail(settings: MailSettings) -> list[Finding]:
    where = f"{settings.smtp.host}:{settings.smtp.port}"
    try:
        warnings = check_templates(settings)
        await try_server(settings.smtp)
    except AimError as error:
        return [_failed("mail", error)]
    found = [Finding("mail", Verdict.WARN, warning) for warning in warnings]
    return [*found, Finding("mail", Verdict.OK, f"{where} answers, and lets us send")]


async def _stream(config: Config) -> AsyncIterator[Finding]:
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


# -- other servers ---------------------------------------------------------------------------------------


async def _peers(config: Config) -> AsyncIterator[Finding]:
    """How things stand with each server that we share spaces with. Raises StoreError."""
    peers = config.provisioner.federation.federates_with
    if not peers:
        return
    if "listen" not in config.model_fields_set:
        text = "without `listen` nobody tells us of invites: we share our spaces, and never come into theirs"
        yield Finding("federation", Verdict.WARN, text, "give `listen`, and let `aim run` run")
    async with open_mirror(app.database_url(config), config.data_dir) as mirror:
        if mirror is None:
            text = f"{', '.join(peers)}: aim run does not run; how it stands with them is seen when it does"
            yield Finding("federation", Verdict.OK, text)
            return
        for facts in await peer_facts(mirror, app.homeserver_of(config).home, peers):
            yield peer_finding(facts, app.homeserver_of(config).bot)


def peer_finding(facts: PeerFacts, bot: str) -> Finding:
    """What there is to say of one of them."""
    seen = f"last seen at {facts.last_seen:%Y-%m-%d %H:%M} UTC" if facts.last_seen else "never seen"
    text = (
        f"{facts.bot}: is in {facts.joined} of our rooms, asked into {facts.invited} more; we are in "
        f"{facts.shared} of its rooms, asked into {facts.asked_into} more; {seen}"
    )
    if facts.newer:
        return Finding(
            "federation", Verdict.WARN, f"{text}; it is a newer aim than this one", "upgrade this one"
        )
    if facts.silent:
        text = f"{text}; in {facts.silent} spaces it has not said, so that we understand it, whom it expects"
        return Finding("federation", Verdict.WARN, text, "its own admin sees why: `aim check` there")
    if facts.invited:
        remedy = (
            f"its admin has to list {bot} in provisioner.federation.federates_with, and its aim has to run"
        )
        return Finding("federation", Verdict.WARN, text, remedy)
    shared = "; its version is understood" if facts.shared else ""
    return Finding("federation", Verdict.OK, text + shared)


def _failed(name: str, error: AimError) -> Finding:
    return Finding(name, Verdict.FAIL, error.message, error.remedy)
