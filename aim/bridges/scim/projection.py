"""Which attributes of a resource an answer holds: `attributes` and `excludedAttributes` (RFC 7644, 3.9).

Works on plain JSON objects, because a group may have ten thousand members. Unknown names are ignored, as the
RFC has it. `schemas` and `id` are always there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aim.bridges.scim.errors import ScimError

_ALWAYS = frozenset({"schemas", "id"})
_NAME = re.compile(
    r"(?:(?P<urn>urn:[A-Za-z0-9._:-]+):)?(?P<attr>\$?[A-Za-z][\w$-]*)(?:\.(?P<sub>\$?[A-Za-z][\w$-]*))?"
)
_CORE = re.compile(r"urn:ietf:params:scim:schemas:core:2\.0:(?:user|group)\Z", re.IGNORECASE)
_VERSION = re.compile(r":\d+\.\d+\Z")

Wanted = Mapping[str, frozenset[str] | None]
"""Lower-case attribute, or URN of an extension → its lower-case sub-attributes; None: all of them."""


@dataclass(frozen=True, slots=True)
class Projection:
    """What is asked for; both None: everything."""

    only: Wanted | None = None
    without: Wanted | None = None

    @property
    def is_whole(self) -> bool:
        """Nothing was asked for in particular."""
        return self.only is None and self.without is None

    def keeps(self, attribute: str) -> bool:
        """Whether anything of this attribute is in the answer: what isn't need not be loaded."""
        name = attribute.lower()
        if self.only is not None:
            return name in self.only
        return self.without is None or self.without.get(name, frozenset()) is not None

    def less(self, *attributes: str) -> Projection:
        """The same without these."""
        if self.only is not None:
            return Projection(only={name: subs for name, subs in self.only.items() if name not in attributes})
        return Projection(without={**(self.without or {}), **dict.fromkeys(attributes)})

    def apply(self, resource: Mapping[str, object]) -> dict[str, object]:
        """The resource with only what is asked for."""
        if self.only is not None:
            return dict(_kept(resource, self.only))
        if self.without is not None:
            return dict(_left(resource, self.without))
        return dict(resource)


WHOLE = Projection()


def projection(attributes: str | Iterable[str] | None, excluded: str | Iterable[str] | None) -> Projection:
    """Of the two parameters, each a list with commas or of strings. ScimError if both are given, or one is no
    attribute name."""
    only, without = _parsed(attributes), _parsed(excluded)
    if only and without:
        raise ScimError(400, "attributes and excludedAttributes exclude each other", "invalidValue")
    return Projection(only or None, without or None)


def _parsed(names: str | Iterable[str] | None) -> dict[str, frozenset[str] | None]:
    found: dict[str, frozenset[str] | None] = {}
    listed = [names] if isinstance(names, str) else names or ()
    for name in (part.strip() for several in listed for part in several.split(",")):
        if name:
            head, sub = _split(name)
            earlier = found.get(head, frozenset())
            found[head] = None if sub is None or earlier is None else earlier | {sub}
    return found


def _split(name: str) -> tuple[str, str | None]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ScimError(400, f"{name[:200]!r} is no attribute name", "invalidPath")
    urn, attr, sub = match["urn"], match["attr"].lower(), match["sub"]
    if urn is None or _CORE.match(urn):
        return attr, sub and sub.lower()
    if _VERSION.search(urn):
        # The URN of an extension alone: what looked like its attribute is its last part.
        return name.lower(), None
    return urn.lower(), attr


def _kept(resource: Mapping[str, object], only: Wanted) -> Iterable[tuple[str, object]]:
    for key, value in resource.items():
        name = key.lower()
        if name in _ALWAYS:
            yield key, value
        elif name in only:
            subs = only[name]
            yield key, value if subs is None else _inner(value, lambda sub, subs=subs: sub in subs)


def _left(resource: Mapping[str, object], without: Wanted) -> Iterable[tuple[str, object]]:
    for key, value in resource.items():
        name = key.lower()
        if name in _ALWAYS or name not in without:
            yield key, value
            continue
        subs = without[name]
        if subs is not None:
            yield key, _inner(value, lambda sub, subs=subs: sub not in subs)


def _inner(value: object, keep: object) -> object:
    """The same of a complex value, or of each in a list."""
    assert callable(keep)
    if isinstance(value, list):
        return [_inner(item, keep) for item in value]
    if isinstance(value, dict):
        return {key: inner for key, inner in value.items() if keep(key.lower())}
    return value
