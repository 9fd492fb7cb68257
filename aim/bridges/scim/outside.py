"""Calls the SCIM service by its public URL, as a client does: through whatever stands in front of it.

Used by `aim check`. In: the URL, and a token that may read users. Out: what was found, for a person to read,
or what is wrong, with its remedy. Reads only, follows no redirect: no client would take its token along.
"""

from __future__ import annotations

import socket
import ssl
import uuid
from collections.abc import Iterator, Mapping

import httpx

from aim.errors import SourceError, SourceInvalid, SourceUnavailable

_PATIENCE = 10.0
"""Seconds for the connection, and for an answer."""
_LONGEST = 200
_SERVICE = "urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"
_LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"

_ALL_BELOW = (
    "let what is in front of aim pass on everything below source.public_url, and compare its path with "
    "source.base_url"
)
_REACH = "check source.public_url, and that what is in front of aim is up"


async def try_outside(url: str, token: str | None) -> str:
    """Asks `url` for what it is (RFC 7644, 4), and with the token for a user whom nobody has: what Entra ID
    calls a connection test. Without a token the second is left out.

    Raises SourceUnavailable if there is no answer, SourceInvalid if it is not ours.
    """
    async with httpx.AsyncClient(
        verify=ssl.create_default_context(),
        timeout=_PATIENCE,
        follow_redirects=False,
        trust_env=False,
        headers={"User-Agent": "matrix-aim", "Accept": "application/scim+json, application/json"},
    ) as client:
        await _ask(client, f"{url}/ServiceProviderConfig", _SERVICE)
        if token is None:
            return f"{url} leads to aim; no token was tried, as none of them may read users"
        client.headers["Authorization"] = f"Bearer {token}"
        found = await _ask(client, f"{url}/Users", _LIST, {"filter": f'userName eq "{uuid.uuid4()}"'})
    if found.get("totalResults") != 0:
        raise SourceInvalid(
            f"{url}/Users finds somebody whom nobody has: the filter does not arrive",
            "let what is in front of aim pass on the part of the address behind the question mark",
        )
    return f"{url} leads to aim, and a token is accepted there"


async def _ask(
    client: httpx.AsyncClient, url: str, schema: str, query: Mapping[str, str] | None = None
) -> Mapping[str, object]:
    """The JSON object of that schema. Raises SourceError."""
    try:
        response = await client.get(url, params=query)
    except httpx.HTTPError as error:
        raise _unanswered(url, error) from error
    if response.status_code != 200:
        raise _refused(url, response, with_token=query is not None)
    try:
        found = response.json()
    except (ValueError, RecursionError) as error:
        what = response.headers.get("Content-Type", "").partition(";")[0] or "something else"
        raise SourceInvalid(f"{url} answers with {_line(what)}, not with JSON", _ALL_BELOW) from error
    schemas = found.get("schemas") if isinstance(found, dict) else None
    if not isinstance(schemas, list) or schema not in schemas:
        raise SourceInvalid(f"{url} answers, but not as a SCIM service does: it is another one", _ALL_BELOW)
    return dict(found)


def _unanswered(url: str, error: httpx.HTTPError) -> SourceError:
    causes = list(_causes(error))
    host = httpx.URL(url).host
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return SourceUnavailable(
            f"the name {host} is not known here", "check source.public_url, and the name in the DNS"
        )
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            why = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else cause.reason
            return SourceUnavailable(
                f"no TLS connection to {host}: {_line(why or str(cause))}",
                "the certificate must be valid for that name, and issued by an authority that clients trust",
            )
    if isinstance(error, httpx.TimeoutException):
        return SourceUnavailable(f"{url} does not answer within {_PATIENCE:g} s", _REACH)
    why = _line(str(error)) or type(error).__name__
    return SourceUnavailable(f"no answer from {url}: {why}", _REACH)


def _refused(url: str, response: httpx.Response, *, with_token: bool) -> SourceInvalid:
    status = response.status_code
    if 300 <= status < 400:
        where = _line(response.headers.get("Location", ""))
        return SourceInvalid(
            f"{url} redirects to {where}",
            "clients don't follow that: let source.public_url, and theirs, be the one that leads to aim",
        )
    if status in {401, 403}:
        return _token_refused(url, status) if with_token else _login_wanted(url, response)
    if status == 404:
        return SourceInvalid(f"{url} is not there (404)", _ALL_BELOW)
    if status in {502, 503, 504}:
        return SourceInvalid(
            f"what answers at {url} does not reach aim ({status})",
            "let it lead to source.port, or where there is none to listen.port, of the machine of `aim run`",
        )
    return SourceInvalid(f"{url} answers {status}", _ALL_BELOW)


def _token_refused(url: str, status: int) -> SourceInvalid:
    return SourceInvalid(
        f"{url} does not accept our own token ({status})",
        "let what is in front of aim pass on the header Authorization, and lead to the `aim run` that has "
        "this configuration; restart that if a token is new",
    )


def _login_wanted(url: str, response: httpx.Response) -> SourceInvalid:
    if 'realm="SCIM"' in response.headers.get("WWW-Authenticate", ""):
        # What is there for everybody is asked for a token only where it is not.
        return SourceInvalid(f"aim answers, but {url} is not one of its addresses", _ALL_BELOW)
    return SourceInvalid(
        f"{url} asks for a login, which aim does not ({response.status_code})",
        "let what is in front of aim pass on requests as they are: aim asks for a token itself",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that led to it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _line(text: str) -> str:
    """What somebody else wrote, fit for one line."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
