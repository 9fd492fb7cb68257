"""What `aim check` tells about Microsoft Graph: everything on the way from the credential to the people.

In come the settings; out goes a Description that reaches as far as things went well, and the error that ended
it. The token is looked at here, and here only, for the permissions it carries.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from aim.bridges.msgraph import faults, trust
from aim.bridges.msgraph.reading import organisation_of
from aim.bridges.msgraph.settings import ClientCertificate, ClientSecret, GraphSettings
from aim.bridges.msgraph.throttle import AWAITED
from aim.bridges.msgraph.transport import Transport, open_transport
from aim.errors import SourceError, SourceInvalid

_ENOUGH: Mapping[str, tuple[str, ...]] = {perms[0]: perms for perms in (faults.USERS, faults.GROUPS)}
"""The least permission for each thing we read → those that contain it."""

_TELLS_ENDS = "Application.Read.All"
"""The permission that would let Graph tell us when our credential ends."""
UNNAMED = f"the tenant (its name is not told: that would need {faults.ORGANISATION})"
"""What stands for the organisation's name."""


@dataclass(slots=True)
class Description:
    """Facts in the order in which they are found."""

    is_logged_in: bool = False
    roles: tuple[str, ...] | None = None
    """The application permissions that we have; None if the token does not say."""
    missing: tuple[str, ...] = ()
    """Those that we need and don't have: the least that would do."""
    superfluous: tuple[str, ...] = ()
    """Those that let us change something, which we never do."""
    unnoticed: str = ""
    """The permission that is missing to be told of changes of groups; empty if none is."""
    organisation: str = UNNAMED
    """What it is called."""
    users: int | None = None
    """How many there are in the tenant, whatever we leave out; None if Graph can't tell."""
    groups: int | None = None
    credential: str = ""
    """What we log in with: `a client secret`, `a certificate`, … ."""
    credential_ends: datetime | None = None
    """In UTC; None if it has no end, or nobody tells."""
    untold: str = ""
    """Why `credential_ends` is not known, as the rest of “when it ends …”; empty if it is, or there is no
    end."""
    error: SourceError | None = None
    """What ended it; None if everything went well."""


async def describe(settings: GraphSettings) -> Description:
    """Tries everything for real; changes nothing. Raises nothing of its own."""
    found = Description()
    try:
        async with open_transport(settings, retries=AWAITED) as graph:
            await look(found, graph, settings)
    except SourceError as error:
        found.error = error
    return found


async def look(found: Description, graph: Transport, settings: GraphSettings) -> None:
    """Fills in what is found. Raises SourceUnavailable and SourceInvalid."""
    _own(found, settings)
    found.roles = roles_of(await graph.token())
    found.is_logged_in = True
    if found.roles is not None:
        found.missing = tuple(missing(found.roles))
        found.superfluous = tuple(role for role in found.roles if "Write" in role)
        if not set(faults.GROUP_NOTICES) & set(found.roles):
            found.unnoticed = faults.GROUP_NOTICES[0]
    if isinstance(settings.credential, ClientSecret):
        await _secret(found, graph, settings, settings.credential)
    if found.missing:
        # What follows would only say the same, and less clearly.
        return
    found.organisation = faults.told(await organisation_of(graph)) or UNNAMED
    found.users = await _count(graph, "/users/$count")
    found.groups = await _count(graph, "/groups/$count")


def roles_of(token: str) -> tuple[str, ...] | None:
    """The application permissions that a token carries; None if it can't be read. It is not verified: that
    is Graph's to do, and we only want to know what it holds."""
    _, _, rest = token.partition(".")
    payload = rest.partition(".")[0]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return None
    if not isinstance(claims, dict):
        return None
    roles = claims.get("roles", [])
    return tuple(sorted(role for role in roles if isinstance(role, str))) if isinstance(roles, list) else None


def missing(roles: tuple[str, ...]) -> Iterator[str]:
    """The least permissions that have to be added to these."""
    return (least for least, enough in _ENOUGH.items() if not set(enough) & set(roles))


def _own(found: Description, settings: GraphSettings) -> None:
    credential = settings.credential
    if isinstance(credential, ClientCertificate):
        found.credential, found.credential_ends = "a certificate", trust.own(credential).ends_at
    elif isinstance(credential, ClientSecret):
        found.credential = "a client secret"
    else:
        found.credential = "an identity that needs no secret of ours"


async def _secret(
    found: Description, graph: Transport, settings: GraphSettings, secret: ClientSecret
) -> None:
    """When our client secret ends, if Graph tells."""
    path = f"/applications(appId='{settings.client_id}')"
    try:
        app = await graph.get(path, {"$select": "passwordCredentials"})
    except SourceInvalid:
        found.untold = f"is not told: that would need {_TELLS_ENDS}"
        return
    found.credential_ends = _end(app.get("passwordCredentials"), secret.value)
    if found.credential_ends is None:
        found.untold = "is not known: none of the app's secrets begins like ours"


def _end(credentials: object, secret: str) -> datetime | None:
    """When ours ends: Graph tells of each secret the first three characters. Of several that begin like it,
    the one that ends first."""
    listed = credentials if isinstance(credentials, list) else []
    ours = [item for item in listed if isinstance(item, dict) and item.get("hint") == secret[:3]]
    ends = [end for end in (_time(item.get("endDateTime")) for item in ours) if end is not None]
    return min(ends, default=None)


def _time(value: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None


async def _count(graph: Transport, path: str) -> int | None:
    try:
        return await graph.count(path)
    except SourceInvalid:
        # Not every cloud can count; the read itself tells then.
        return None
