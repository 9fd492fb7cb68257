"""What went wrong, in words: refusals of Entra ID and of Graph become errors of ours. Pure.

In come status, headers and decoded bodies; out goes a SourceError with one line of cause and one of remedy.
SourceUnavailable: trying again may help. SourceInvalid: somebody has to mend something. What Entra ID says is
known by its number (`AADSTS7000215`), what Graph says by its `error.code`; their sentences are passed on only
where we have none of our own.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import NamedTuple

from aim.bridges.msgraph.graph import ResyncNeeded
from aim.errors import SourceError, SourceInvalid, SourceUnavailable

_SHOWN = 200
"""How many characters of what a server says are passed on."""

LATER = "Mostly it passes: aim run tries again by itself. Nothing that was read so far is used."
_RENEW = (
    "In the Entra admin center, under App registrations, Certificates & secrets, make a new client secret and"
    " give its Value as source.client_secret."
)
_TENANT = "Let source.tenant_id be the Directory (tenant) ID of the app's overview page"
_CONSENT = "in the Entra admin center under App registrations, API permissions, and grant admin consent."
_CERTIFICATE = (
    "Upload the certificate (the public part) under App registrations, Certificates & secrets, and check that"
    " source.client_certificate has the same one with its private key."
)
_FEDERATED = (
    "Compare issuer, subject and audience of the federated credential (App registrations, Certificates &"
    " secrets) with the token in source.workload_identity."
)
_SCOPES = "Let source.scopes be base_url with /.default, as https://graph.microsoft.com/.default."
CLOUD = "Check that source.authority, source.base_url and source.scopes belong to the same cloud."
ADDRESS = "Check source.base_url, and the proxy, if there is one (HTTPS_PROXY)."


class TokenRefused(SourceInvalid):
    """Entra ID does not accept who we say we are."""


class _Meaning(NamedTuple):
    cause: str
    remedy: str


# https://learn.microsoft.com/entra/identity-platform/reference-error-codes
_MEANINGS: Mapping[int, _Meaning] = {
    7000215: _Meaning(
        "the client secret is wrong", f"{_RENEW} It is the Value that is wanted, not the Secret ID."
    ),
    7000222: _Meaning("the client secret has expired", _RENEW),
    7000218: _Meaning("it wants a client secret or a certificate, and was given none", _RENEW),
    90002: _Meaning("there is no such tenant", f"{_TENANT}, and source.authority its cloud."),
    900023: _Meaning("source.tenant_id is neither an id nor a domain", f"{_TENANT}."),
    900382: _Meaning("the tenant is in another cloud", CLOUD),
    90038: _Meaning("the tenant is in another cloud", CLOUD),
    700016: _Meaning(
        "there is no such app in this tenant",
        "Let source.client_id be the Application (client) ID of the app's overview page, and source.tenant_id"
        " the tenant that it is in.",
    ),
    7000112: _Meaning(
        "the app is disabled", "Enable sign-in under Enterprise applications, Properties, in the tenant."
    ),
    7000229: _Meaning(
        "the app has no service principal in this tenant",
        f"Grant admin consent: add User.Read.All and GroupMember.Read.All {_CONSENT}",
    ),
    65001: _Meaning(
        "nobody has consented to the app's permissions",
        f"Add the application permissions User.Read.All and GroupMember.Read.All {_CONSENT}",
    ),
    500011: _Meaning("it knows no service that source.scopes names", f"{_SCOPES} {CLOUD}"),
    70011: _Meaning("source.scopes is malformed", _SCOPES),
    1002012: _Meaning("source.scopes is not one that an app can have", _SCOPES),
    700027: _Meaning("it does not know our certificate, or the certificate has expired", _CERTIFICATE),
    700023: _Meaning("our certificate's assertion is for somebody else", CLOUD),
    700024: _Meaning(
        "our assertion is not valid at this time",
        "Mend this machine's clock; for source.workload_identity, check that the token's file is renewed.",
    ),
    70021: _Meaning("no federated credential of the app fits our token", _FEDERATED),
    700211: _Meaning("no federated credential of the app has the issuer of our token", _FEDERATED),
    700212: _Meaning("no federated credential of the app has the audience of our token", _FEDERATED),
    700213: _Meaning("no federated credential of the app has the subject of our token", _FEDERATED),
    53003: _Meaning(
        "a Conditional Access policy keeps the app out",
        "Look at the service principal's sign-in logs in the Entra admin center, and exclude the app or allow"
        " this machine's address.",
    ),
}

# 90033 and 90024: a fault of theirs that passes; 50196: asked too often for the same.
_PASSING = frozenset({90033, 90024, 50196})
_PASSING_ERRORS = frozenset({"temporarily_unavailable", "server_error"})
_NUMBER = re.compile(r"AADSTS(\d+)")
_TRAILER = re.compile(r"\s*Trace ID:.*", re.DOTALL)


def told(text: object) -> str:
    """What a server says, as one line of bearable length; empty if it says nothing."""
    if not isinstance(text, str):
        return ""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


# -- Entra ID --------------------------------------------------------------------------------------------


def token_refused(authority: str, status: int, answer: Mapping[str, object]) -> SourceError:
    """For what the token endpoint, or the tenant's metadata, answers instead (RFC 6749, section 5.2)."""
    description = answer.get("error_description")
    text = description if isinstance(description, str) else ""
    number = _number(answer, text)
    if number in _PASSING or answer.get("error") in _PASSING_ERRORS:
        return SourceUnavailable(
            f"{authority} gives us no token at the moment ({_code(number, status)})", LATER
        )
    meaning = _MEANINGS.get(number)
    if meaning is None:
        said = told(_TRAILER.sub("", text)) or told(answer.get("error")) or str(status)
        return TokenRefused(
            f"{authority} gives us no token: {said}",
            "Look the number up on https://login.microsoftonline.com/error, and check source.tenant_id,"
            " source.client_id and the credential.",
        )
    return TokenRefused(
        f"{authority} gives us no token: {meaning.cause} ({_code(number, status)})", meaning.remedy
    )


def _number(answer: Mapping[str, object], text: str) -> int:
    codes = answer.get("error_codes")
    if isinstance(codes, list) and codes and isinstance(codes[0], int):
        return codes[0]
    found = _NUMBER.search(text)
    return int(found[1]) if found else 0


def _code(number: int, status: int) -> str:
    return f"AADSTS{number}" if number else str(status)


# -- Graph -----------------------------------------------------------------------------------------------

USERS = ("User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All")
"""Application permissions of which each lets us read users, the least first."""
GROUPS = (
    "GroupMember.Read.All",
    "GroupMember.ReadWrite.All",
    "Group.Read.All",
    "Group.ReadWrite.All",
    "Directory.Read.All",
    "Directory.ReadWrite.All",
)
"""The same for groups and their members."""

GROUP_NOTICES = ("Group.Read.All", "Group.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All")
"""The same for being told of changes of groups."""
ORGANISATION = "Organization.Read.All"
"""The least permission for what the organisation is called, which we can do without."""

_RESYNC = frozenset({"syncstatenotfound", "syncstateinvalid", "resyncrequired"})
_EXPIRED_PAGE = "directory_expiredpagetoken"


def needed(path: str) -> tuple[str, ...]:
    """Which permissions would do for a path below the version; the least first."""
    return GROUPS if "/group" in path.lower() or "member" in path.lower() else USERS


def refused(what: str, path: str, status: int, answer: object, *, is_delta: bool) -> SourceError:
    """For an answer of Graph that is not to be tried again. `what` names the request, `path` tells which
    permission it needs. `is_delta`: it goes on from a delta or skip token."""
    code, message = said(answer)
    if status == 410 or code.lower() in _RESYNC or (is_delta and status == 400):
        return ResyncNeeded(
            f"{what}: Graph can't tell any more what has changed since ({code or status})",
            "Everything is read again; nothing has to be done.",
        )
    if code.lower() == _EXPIRED_PAGE:
        return SourceUnavailable(f"{what}: Graph has forgotten where the read was ({code})", LATER)
    words = f"{code}: {message}" if code and message else code or message or "it does not say why"
    if status == 401:
        return SourceInvalid(f"{what}: Graph does not accept our token (401, {words})", CLOUD)
    if status == 403:
        return _forbidden(what, path, code, words)
    if status == 404:
        return SourceInvalid(
            f"{what}: there is no such thing (404, {words})",
            "Check source.base_url, and the ids in source.groups.",
        )
    return SourceInvalid(
        f"{what}: Graph can't do what it was asked ({status}, {words})",
        "Check source.filter, source.attributes and source.base_url.",
    )


def _forbidden(what: str, path: str, code: str, words: str) -> SourceInvalid:
    if code == "Authorization_RequestDenied":
        least = needed(path)[0]
        return SourceInvalid(
            f"{what}: the app has no permission for this: {least} is missing (403, {code})",
            f"Add the application permission {least} {_CONSENT}",
        )
    return SourceInvalid(
        f"{what}: Graph refuses this (403, {words})",
        "Look at the app's permissions, and at the service principal's sign-in logs.",
    )


def said(answer: object) -> tuple[str, str]:
    """`error.code` and `error.message` of an answer of Graph; both empty if it is none."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return "", ""
    return told(error.get("code")), told(error.get("message"))


def redirected(what: str, where: str) -> SourceInvalid:
    """Redirects are never followed: what is at the other end is not asked for a token."""
    return SourceInvalid(f"{what}: redirected to {told(where) or 'nowhere'}", ADDRESS)


def foreign(what: str, where: str) -> SourceInvalid:
    """A link that leads elsewhere than to Graph."""
    return SourceInvalid(
        f"{what}: the link to what comes next leads to {told(where)}: our token is not sent there",
        f"{ADDRESS} Something on the way changes what Graph says.",
    )


def malformed(what: str, why: str) -> SourceUnavailable:
    """An answer with status 200 that Graph would not give."""
    return SourceUnavailable(f"{what}: what answers is not Graph, or was cut off: {why}", ADDRESS)


_CLAIMS = re.compile(r'\bclaims\s*=\s*"([^"]*)"', re.IGNORECASE)


def claims(challenge: str) -> str | None:
    """The JSON that a `WWW-Authenticate` of a 401 asks the next token to have; None if it asks for none.

    https://learn.microsoft.com/entra/identity-platform/claims-challenge
    """
    found = _CLAIMS.search(challenge)
    if found is None:
        return None
    text = found[1].replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
