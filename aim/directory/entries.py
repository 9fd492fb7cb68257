"""Entries as a reader hands them over, and the rules for reading values out of them. Pure.

In come entries of LDAP or LDIF, with values as raw as they came; out come texts, ids and SIDs. Values have no
order: wherever one of several must be taken, it is the smallest, so that the order of arrival never matters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

Value = bytes | str
"""One attribute value; bytes are decoded only when they are looked at."""

Attributes = Mapping[str, Sequence[Value]]
"""Attribute description in lower case → values. With options (`cn;lang-de`) it is another attribute."""


class Entry(NamedTuple):
    """One entry of a directory tree."""

    dn: str
    """As the source spells it."""
    attributes: Attributes


_STABLE_IDS = ("entryuuid", "objectguid", "nsuniqueid", "ipauniqueid")
_ALWAYS_READ = (
    "objectclass",
    *("cn", "ou", "dc", "o", "uid"),
    *("member", "uniquemember", "memberuid"),
    *("objectsid", "primarygroupid"),
    *("useraccountcontrol", "nsaccountlock", "pwdaccountlockedtime"),
)


@dataclass(frozen=True, slots=True)
class Rules:
    """Which attributes carry what: candidates in order of preference, in lower case."""

    uid: tuple[str, ...] = ("uid", "samaccountname")
    name: tuple[str, ...] = ("displayname", "cn", "name")
    mail: tuple[str, ...] = ("mail",)
    id: tuple[str, ...] = ()
    """Looked at before entryUUID, objectGUID, nsUniqueId and ipaUniqueID."""
    enabled: tuple[str, ...] = ()
    """Say whether an account is enabled, beside what each kind of server has for it."""
    avatar: tuple[str, ...] = ()
    """Hold a picture (jpegPhoto, thumbnailPhoto)."""

    @classmethod
    def of(
        cls,
        *,
        uid: str | Iterable[str] | None = None,
        name: str | Iterable[str] | None = None,
        mail: str | Iterable[str] | None = None,
        id: str | Iterable[str] | None = None,  # noqa: A002 - the word the configuration uses
        enabled: str | Iterable[str] | None = None,
        avatar: str | Iterable[str] | None = None,
    ) -> Rules:
        """Rules from a configuration: one name or several each, in any case; None for the default."""
        default = cls()
        return cls(
            default.uid if uid is None else _names(uid),
            default.name if name is None else _names(name),
            default.mail if mail is None else _names(mail),
            default.id if id is None else _names(id),
            default.enabled if enabled is None else _names(enabled),
            default.avatar if avatar is None else _names(avatar),
        )

    @property
    def attributes(self) -> tuple[str, ...]:
        """All attributes that flattening looks at: a reader need not ask for more. Sorted."""
        return tuple(
            sorted(
                {
                    *_ALWAYS_READ,
                    *_STABLE_IDS,
                    *self.uid,
                    *self.name,
                    *self.mail,
                    *self.id,
                    *self.enabled,
                    *self.avatar,
                }
            )
        )


def _names(names: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(name.lower() for name in ([names] if isinstance(names, str) else names))


def text(value: Value) -> str:
    """A value as text; bytes that are no UTF-8 become U+FFFD."""
    return value if isinstance(value, str) else value.decode("utf-8", "replace")


def texts(attributes: Attributes, name: str) -> list[str]:
    """All values of an attribute as texts without outer spaces, sorted, without empty and equal ones."""
    values = attributes.get(name)
    if not values:
        return []
    if len(values) == 1:
        only = text(values[0]).strip()
        return [only] if only else []
    return sorted({stripped for value in values if (stripped := text(value).strip())})


def candidates(attributes: Attributes, names: Iterable[str]) -> list[str]:
    """The `texts` of the first of these attributes that has any."""
    for name in names:
        found = texts(attributes, name)
        if found:
            return found
    return []


def first(attributes: Attributes, names: Iterable[str]) -> str | None:
    """The smallest value of the first of these attributes that has any."""
    return next(iter(candidates(attributes, names)), None)


def stable_id(attributes: Attributes, configured: Iterable[str]) -> str | None:
    """The id that stays when an entry is renamed or moved, as text; None if it has none.

    `configured` attributes come first, then entryUUID (RFC 4530), objectGUID, nsUniqueId, ipaUniqueID.
    """
    for name in (*configured, *_STABLE_IDS):
        values = attributes.get(name)
        if values:
            spelled = min(filter(None, [_id_text(name, value) for value in values]), default="")
            if spelled:
                return spelled
    return None


def _id_text(name: str, value: Value) -> str:
    if name == "objectguid":
        return guid(value) or ""
    if name == "objectsid":
        return sid(value) or ""
    try:
        spelled = value.strip() if isinstance(value, str) else value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return bytes(value).hex() if isinstance(value, bytes) else ""
    # The three UUID-like ids compare without case; of a configured one we can't know.
    return spelled.lower() if name in _STABLE_IDS else spelled


_GUID = re.compile(r"\{?([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\}?")


def guid(value: Value) -> str | None:
    """An objectGUID in its usual spelling; None if it is none.

    In comes the 16-byte form, whose first three parts are little-endian (MS-DTYP, 2.3.4.2), or text.
    """
    raw = value.encode("utf-8") if isinstance(value, str) else bytes(value)
    if len(raw) == 16:
        digits = raw.hex()
        return (
            f"{digits[6:8]}{digits[4:6]}{digits[2:4]}{digits[0:2]}-{digits[10:12]}{digits[8:10]}"
            f"-{digits[14:16]}{digits[12:14]}-{digits[16:20]}-{digits[20:]}"
        )
    match = _GUID.fullmatch(text(value).strip().lower())
    return match[1] if match else None


_SID = re.compile(r"S-1-(\d{1,14})((?:-\d{1,10}){1,15})", re.IGNORECASE | re.ASCII)


def sid(value: Value) -> str | None:
    """A security identifier as text (`S-1-5-…`), from that or from binary (MS-DTYP, 2.4.2); else None."""
    raw = value.encode("utf-8") if isinstance(value, str) else bytes(value)
    if len(raw) >= 12 and raw[0] == 1 and len(raw) == 8 + 4 * raw[1]:
        parts = (int.from_bytes(raw[at : at + 4], "little") for at in range(8, len(raw), 4))
        return f"S-1-{int.from_bytes(raw[2:8], 'big')}-" + "-".join(map(str, parts))
    spelled = text(value).strip().upper()
    return spelled if _SID.fullmatch(spelled) else None
