"""Resources of SCIM as rows: what is stored of them, and the keys by which they are compared.

Below `scim` and `scim_filters`. In come resources and texts, out go arguments of queries; and back again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import overload
from unicodedata import normalize

import asyncpg

from aim.ports.scim import ScimKind, ScimMember, ScimResource, ScimTooLong

_LONGEST_KEY = 1_500
"""Bytes of UTF-8: what an index of Postgres takes (2,704) with a client and an id beside it."""

_KINDS = {kind.value: kind for kind in ScimKind}
"""Looking one up takes a tenth of the time of making it from its value: a group may have many members."""


def exact_key(text: str) -> str:
    """What `text` is compared as where case matters (RFC 7643, 2.3.1)."""
    return normalize("NFC", storable(text))


def folded_key(text: str) -> str:
    """What `text` is compared as where case is ignored. Lower case can leave form C."""
    return normalize("NFC", exact_key(text).lower())


def storable(text: str) -> str:
    """`text` with `�` and `?` for NUL and lone surrogates, which Postgres can't hold."""
    return text.replace("\x00", "\ufffd").encode(errors="replace").decode()


def values(resource: ScimResource) -> list[object]:
    """What is stored of `resource`, but for its kind and id: the arguments $4 to $14 of `scim_create`.

    Raises ScimTooLong.
    """
    is_user = resource.kind is ScimKind.USER
    shown = resource.document.get("displayName") if is_user else resource.name
    shown = storable(shown) if isinstance(shown, str) else None
    emails = [storable(email) for email in resource.emails]
    name_key = folded_key(resource.name)
    external_key = None if resource.external_id is None else exact_key(resource.external_id)
    display_key = None if shown is None else folded_key(shown)
    email_keys = [folded_key(email) for email in emails]
    _refuse_long("userName" if is_user else "displayName", name_key)
    _refuse_long("externalId", external_key or "")
    _refuse_long("displayName", display_key or "")
    for key in email_keys:
        _refuse_long("emails.value", key)
    return [
        storable(resource.name),
        name_key,
        None if resource.external_id is None else storable(resource.external_id),
        external_key,
        resource.active,
        None if resource.localpart is None else storable(resource.localpart),
        emails,
        email_keys,
        shown if is_user else None,
        display_key,
        _text_of(resource.document),
    ]


def _refuse_long(attribute: str, key: str) -> None:
    if len(key.encode()) > _LONGEST_KEY:
        raise ScimTooLong(f"{attribute} is longer than {_LONGEST_KEY} bytes")


def resource_of(row: asyncpg.Record) -> ScimResource:
    """The resource of a row with its document."""
    return _resource(row, json.loads(row["document"]))


def shown_of(row: asyncpg.Record) -> ScimResource:
    """The same of a row that has the groups of users with it."""
    groups = members_of(row) if row["ids"] else ()
    return _resource(row, json.loads(row["document"]), groups if row["kind"] == ScimKind.USER else None)


def outline_of(row: asyncpg.Record) -> ScimResource:
    """The resource of a row with `display_name` in place of its document."""
    shown = row["display_name"]
    return _resource(row, {} if shown is None else {"displayName": shown})


def _resource(
    row: asyncpg.Record, document: dict[str, object], groups: Sequence[ScimMember] | None = None
) -> ScimResource:
    return ScimResource(
        kind=ScimKind(row["kind"]),
        id=row["id"],
        name=row["name"],
        external_id=row["external_id"],
        active=row["active"],
        localpart=row["localpart"],
        emails=tuple(row["emails"]),
        document=document,
        version=row["version"],
        created=row["created"],
        modified=row["modified"],
        groups=groups,
    )


class Members(Sequence[ScimMember]):
    """Members as columns, each made when it is looked at. Ten thousand objects that are kept for a while have
    Python look through all others for garbage, which takes longer than all the rest of an answer."""

    __slots__ = ("_ids", "_kinds", "_names")

    def __init__(self, ids: Sequence[str], kinds: Sequence[str], names: Sequence[str]) -> None:
        self._ids, self._kinds, self._names = ids, kinds, names

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[ScimMember]:
        kinds = map(_KINDS.__getitem__, self._kinds)
        return map(ScimMember._make, zip(self._ids, kinds, self._names, strict=True))

    @overload
    def __getitem__(self, index: int) -> ScimMember: ...
    @overload
    def __getitem__(self, index: slice) -> Members: ...
    def __getitem__(self, index: int | slice) -> ScimMember | Members:
        if isinstance(index, slice):
            return Members(self._ids[index], self._kinds[index], self._names[index])
        return ScimMember(self._ids[index], _KINDS[self._kinds[index]], self._names[index])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return repr(list(self))


def members_of(row: asyncpg.Record) -> Members:
    """The members of a row with arrays of `ids`, `kinds` and `names`."""
    return Members(row["ids"], row["kinds"], row["names"])


def _text_of(document: Mapping[str, object]) -> str:
    """The same for the same document, whatever the order of its keys."""
    return json.dumps(document, sort_keys=True)


def differ(one: ScimResource, other: ScimResource) -> bool:
    """True if there is something of `one` to be stored over `other`. The order of JSON keys is nothing."""
    return _content(one) != _content(other)


def _content(resource: ScimResource) -> tuple[object, ...]:
    # As text, in which `true` and 1 are two things.
    document = _text_of(resource.document)
    texts = (resource.name, resource.external_id, resource.localpart)
    stored = (None if text is None else storable(text) for text in texts)
    return (*stored, resource.active, [storable(email) for email in resource.emails], document)
