"""`aim check` of Microsoft Graph: the login, the permissions, and what is there to be read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aim import app
from aim.check.words import SOON, count, failed
from aim.config.sources import MsGraphSource
from aim.matrix.check import Finding, Verdict

if TYPE_CHECKING:
    from aim.bridges.msgraph.describe import Description


async def found_of_graph(source: MsGraphSource) -> list[Finding]:
    """Everything on the way. Raises nothing of its own."""
    # msal takes its time to import.
    from aim.bridges.msgraph.describe import describe

    found = await describe(app.graph_settings_of(source))
    return list(graph_findings(found, app.now(), has_webhook=source.webhook_url is not None))


def graph_findings(found: Description, now: datetime, *, has_webhook: bool = False) -> Iterator[Finding]:
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
        yield failed("graph" if found.is_logged_in else "login", found.error)
    elif not found.missing:
        counts = [(found.users, "user", "users"), (found.groups, "group", "groups")]
        told = [count(number, *words) for number, *words in counts if number is not None]
        yield Finding(
            "graph", Verdict.OK, f"{found.organisation}: {', '.join(told) or 'Graph does not count'}"
        )


def _credential(found: Description, now: datetime) -> Finding:
    message = f"logged in with {found.credential}"
    ends = found.credential_ends
    if ends is None:
        return Finding(
            "login", Verdict.OK, f"{message}; when it ends {found.untold}" if found.untold else message
        )
    message += f", which ends on {ends.astimezone(UTC):%Y-%m-%d}"
    if ends - now < SOON:
        return Finding(
            "login",
            Verdict.WARN,
            f"{message}, in {max(0, (ends - now).days)} days",
            "Make a new one before then, in the Entra admin center under App registrations, Certificates &"
            " secrets: afterwards nothing can be read.",
        )
    return Finding("login", Verdict.OK, message)


def _permissions(found: Description) -> Iterator[Finding]:
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
