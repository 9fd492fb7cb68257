"""The types of single values: what they accept, and what they say when they do not. Used by all models.

Each takes text as it stands in the file (or the finished value, from code) and gives a plain Python value.
Messages never repeat the value.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationInfo

from aim.config.section import directory_of


def _matching(pattern: str, text: str) -> AfterValidator:
    """Accepts what matches the whole pattern; else says `text`."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(text)
        return value

    return AfterValidator(check)


def _text(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    if value != value.strip():
        raise ValueError("must not begin or end with a space")
    if not value.isprintable():
        raise ValueError("must not contain control characters")
    return value


Text = Annotated[str, AfterValidator(_text)]
"""One line of text, not empty."""


def as_list(value: object) -> object:
    """One value where a list may stand is a list of one."""
    return [value] if isinstance(value, (str, dict, BaseModel)) else value


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value():
        raise ValueError("must not be empty")
    return value


def _token(value: SecretStr) -> SecretStr:
    # RFC 6750 allows fewer characters still; what matters is that none can break out of a header.
    if re.search(r"[^\x21-\x7e]", value.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces")
    return value


Secret = Annotated[SecretStr, AfterValidator(_secret)]
Token = Annotated[SecretStr, AfterValidator(_secret), AfterValidator(_token)]
"""A bearer token."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(value: object) -> object:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", value) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, timedelta):
            return value
        raise ValueError("must be an amount and a unit, s, m, h or d: 90s, 15m, 24h, 30d")
    try:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    except OverflowError:
        raise ValueError("is too long a time") from None


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""`<amount><unit>`, unit being s, m, h or d."""


def _pattern(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a valid regular expression: {error.msg} at position {error.pos}") from None
    except (RecursionError, OverflowError):
        raise ValueError("is not a usable regular expression") from None


Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]
"""A Python regular expression, compiled."""


def _split(value: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """The parts of a URL without user name, query and fragment. Raises ValueError."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or re.search(r"\s", value):
        raise ValueError(f"must be a URL such as {example}")
    if "@" in parts.netloc:
        raise ValueError("must not carry a user name or password")
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or fragment")
    return parts


def _http_url(value: str) -> str:
    _split(value, ("http", "https"), "https://matrix.example.com")
    return value.rstrip("/")


def _https_url(value: str) -> str:
    _split(value, ("https",), "https://aim.example.com/graph")
    return value


def _ldap_uri(value: str) -> str:
    if _split(value, ("ldap", "ldaps"), "ldaps://ldap.example.com").path.strip("/"):
        raise ValueError("must name only the server; the base belongs in `base`")
    return value.rstrip("/")


def _postgres_url(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"postgres(ql)?://\S+", value.get_secret_value()):
        raise ValueError("must be a URL such as postgresql://aim:password@localhost/aim")
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url)]
"""An http or https URL, without its last slash."""
HttpsUrl = Annotated[str, AfterValidator(_https_url)]
"""An https URL, as it is written."""
LdapUri = Annotated[str, AfterValidator(_ldap_uri)]
PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres_url)]
"""A secret, because it carries the password."""
UrlPrefix = Annotated[
    str,
    _matching(r"(/[A-Za-z0-9._~-]+)*/?|", "must be a path such as /scim/v2"),
    AfterValidator(lambda value: value.rstrip("/")),
]

# Matrix specification, appendices: server names and user identifiers.
_DNS_OR_IPV4 = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?"
_SERVER = rf"(?:{_DNS_OR_IPV4}|\[[0-9A-Fa-f:.]{{2,45}}\])(?::[0-9]{{1,5}})?"
_LOCALPART = r"[a-z0-9._=/+-]+"

ServerName = Annotated[str, _matching(_SERVER, "must be a server name such as example.com, no URL")]
Localpart = Annotated[
    str,
    _matching(
        _LOCALPART, "must be a localpart: lower-case letters, digits and ._=/+- only, no @ and no server"
    ),
]
Mxid = Annotated[
    str,
    # The localpart may be an old one: upper case and more was allowed once (Appendices, Historical User IDs).
    _matching(rf"@[\x21-\x39\x3b-\x7e]+:{_SERVER}", "must be a Matrix user id such as @aim:example.com"),
]
RoomName = Annotated[
    str,
    _matching(
        # From room version 12 on an id names no server.
        rf"#[^\s:\0]+:{_SERVER}|![^\s:\0]+(?::{_SERVER})?",
        "must be the alias or the id of a room, such as '#company:example.com' or '!id:example.com'",
    ),
]
MxcUri = Annotated[
    str, _matching(rf"mxc://{_SERVER}/[A-Za-z0-9_-]+", "must be an mxc:// URI of uploaded media")
]
PowerLevel = Annotated[int, Field(le=100, ge=-(2**53) + 1)]
"""Matrix integers are those that JSON carries safely (canonical JSON)."""
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=1, le=366 * 86400)]

# RFC 4512, 2.5: a short name or an OID, with options.
_ATTRIBUTE = r"(?:[A-Za-z][A-Za-z0-9-]*|[0-9]+(?:\.[0-9]+)+)(?:;[A-Za-z0-9-]+)*"
Attribute = Annotated[str, _matching(_ATTRIBUTE, "must be the name of an attribute; several make a list")]
ObjectId = Annotated[
    str,
    _matching(
        r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}",
        "must be an object id such as 00000000-0000-0000-0000-000000000003",
    ),
    AfterValidator(str.lower),
]
"""Of an object in Microsoft Entra ID."""
GraphProperty = Annotated[
    str,
    _matching(
        r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)?",
        "must be the name of one property, such as mailNickname or "
        "onPremisesExtensionAttributes/extensionAttribute1",
    ),
]
"""Of a user in Microsoft Graph."""
Attributes = Annotated[tuple[Attribute, ...], BeforeValidator(as_list), Field(min_length=1)]
"""Attribute names in order of preference; one or a list."""


def _some_path(value: object) -> object:
    if value == "":
        raise ValueError("must not be empty")
    return value


def _located(value: Path, info: ValidationInfo) -> Path:
    return directory_of(info) / value


FilePath = Annotated[Path, BeforeValidator(_some_path), AfterValidator(_located)]
"""A path; a relative one starts from the directory of the configuration file."""
