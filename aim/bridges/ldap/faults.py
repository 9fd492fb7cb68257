"""What went wrong, in words: results of a server (RFC 4511, appendix A) become errors of ours. Pure.

In comes a Result that is not success, or what a library raised; out goes a SourceError with one line of cause
and one of remedy. SourceUnavailable: trying again may help. SourceInvalid: somebody has to mend something.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from aim.bridges.ldap.ber import Malformed, Result
from aim.errors import SourceError, SourceInvalid, SourceUnavailable

SUCCESS, REFERRAL = 0, 10
NO_SUCH_OBJECT, INVALID_CREDENTIALS, BUSY, UNAVAILABLE = 32, 49, 51, 52

_SHOWN = 200
"""How many characters of what a server says are passed on."""

_SECURE = "Use an ldaps:// uri, or set source.start_tls."
RIGHTS = "Give the account that source.bind_dn names the right to read everything below source.base."
_LIMITS = (
    "Let the account read everything in pages (OpenLDAP: `limits dn.exact=… size.pr=unlimited"
    " size.prtotal=unlimited time=unlimited`; 389ds: nsSizeLimit, nsLookThroughLimit and nsPagedSizeLimit)."
)
PAGES = "Turn paged results (RFC 2696) on for this account."
_LATER = "It is tried again; if it stays like this, look at the server's log."


class LoginRefused(SourceInvalid):
    """The server does not accept our name and password, and may have counted that against the account."""


class _Meaning(NamedTuple):
    cause: str
    remedy: str
    is_transient: bool = False


_MEANINGS: Mapping[int, _Meaning] = {
    1: _Meaning("the server can't do it (operationsError)", _LATER, True),
    3: _Meaning("the server's time limit ended the read before everything was read", _LIMITS),
    4: _Meaning("the server's size limit ended the read before everything was read", _LIMITS),
    7: _Meaning(
        "the server does not offer this way to log in", "Use source.bind_dn with source.bind_password."
    ),
    8: _Meaning("the server wants a stronger protection than this connection has", _SECURE),
    11: _Meaning("a limit of the server's administrator ended the read before everything was read", _LIMITS),
    12: _Meaning("the server can't give entries in pages", PAGES),
    13: _Meaning("the server wants this connection to be encrypted", _SECURE),
    34: _Meaning("a name in the configuration is no DN to the server", "Mend source.base or source.bind_dn."),
    48: _Meaning(
        "the server does not let this account, or nobody at all, log in like this",
        "Set source.bind_dn and source.bind_password.",
    ),
    50: _Meaning("the account may not do this", RIGHTS),
    51: _Meaning("the server is busy", _LATER, True),
    52: _Meaning("the server is not available at the moment", _LATER, True),
    53: _Meaning("the server is unwilling", "Look at the server's log."),
}

# What Active Directory means by the `data` in the message of a refused bind: error codes of Windows in hex.
_REFUSALS = {
    "525": "there is no such account",
    "52e": "wrong password, or no such account",
    "530": "the account may not log in at this time of day",
    "531": "the account may not log in from this machine",
    "532": "the account's password has expired",
    "533": "the account is disabled",
    "701": "the account has expired",
    "773": "the account's password has to be changed first",
    "775": "the account is locked after too many wrong passwords",
}
_NOBODY = ("successful bind must be completed", "without authentication")
"""What Active Directory and Samba say to who has not logged in."""

_DATA = re.compile(r"\bdata ([0-9a-f]{3,4})\b")


def told(message: str) -> str:
    """What a server says, as one line of bearable length; empty if it says nothing."""
    line = " ".join("".join(c if c.isprintable() else " " for c in message).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def of_result(result: Result, uri: str, doing: str, base: str = "") -> SourceError:
    """The error for a result other than success. `doing` is what was asked for, `base` where."""
    if result.code == NO_SUCH_OBJECT:
        return _no_such_object(result, uri, base)
    if result.code == REFERRAL:
        return _referral(result, uri, base)
    if result.code == INVALID_CREDENTIALS:
        return _refused_bind(result, uri)
    meaning = _MEANINGS.get(result.code) or _Meaning("the server refused", "Look at the server's log.")
    if any(words in result.message for words in _NOBODY):
        meaning = _Meaning("the server answers nobody who has not logged in", _MEANINGS[48].remedy)
    said = f", it says: {told(result.message)}" if told(result.message) else ""
    kind = SourceUnavailable if meaning.is_transient else SourceInvalid
    return kind(f"{uri}: {doing}: {meaning.cause} (result {result.code}{said})", meaning.remedy)


def _no_such_object(result: Result, uri: str, base: str) -> SourceError:
    nearest = f"; the nearest that is there is {told(result.matched_dn)}" if result.matched_dn else ""
    return SourceInvalid(
        f"{uri}: {base} does not exist, or the account may not see it{nearest}",
        "Check source.base, and that the account that source.bind_dn names may read it.",
    )


def _referral(result: Result, uri: str, base: str) -> SourceError:
    where = f" and points to {told(', '.join(result.referrals))}" if result.referrals else ""
    return SourceInvalid(
        f"{uri}: the server does not hold {base}{where}",
        "Name that server in source.uri, or a source.base that this one holds: referrals are never followed.",
    )


def _refused_bind(result: Result, uri: str) -> SourceError:
    code = _DATA.search(result.message)
    remedy = "Check source.bind_dn and source.bind_password, and the account on the server."
    if code is None:
        # Not Active Directory.
        remedy += " On OpenLDAP the access rules need `by anonymous auth` on userPassword."
    why = _REFUSALS.get(code[1].lower().lstrip("0") if code else "", "wrong name or password")
    return SourceInvalid(
        f"{uri}: the server refuses to log us in: {why} (result {result.code})",
        remedy,
    )


def malformed(uri: str, what: str) -> SourceInvalid:
    """The server sent something that is no LDAP."""
    return SourceInvalid(
        f"{uri}: what the server sent is malformed: {what}",
        "Check that source.uri names an LDAP server, and that ldap:// or ldaps:// fits its port.",
    )


@contextmanager
def decoding(uri: str) -> Iterator[None]:
    """What can't be decoded inside is an error of the server at `uri`."""
    try:
        yield
    except Malformed as error:
        raise malformed(uri, str(error)) from error


def cut(uri: str, why: str, *, is_new: bool = False) -> SourceUnavailable:
    """The connection ended too early; if it `is_new`, before anything was asked."""
    if is_new:
        return SourceUnavailable(
            f"{uri}: the server ended the connection before we were logged in ({told(why)})",
            "Check that ldap:// or ldaps:// in source.uri fits the port, and look at the server's log.",
        )
    return SourceUnavailable(
        f"{uri}: the connection was lost before everything was read ({told(why)})",
        "It is tried again. Nothing that was read so far is used.",
    )


def silent(uri: str, seconds: float) -> SourceUnavailable:
    """A time-out."""
    return SourceUnavailable(
        f"{uri}: the server did not answer within {seconds:g} seconds",
        "It is tried again. If the server is that slow, raise source.read_timeout.",
    )
