"""Which entries a search finds and what it shows of them, as an Active Directory does: many values come in
ranges.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from tests.servers import ldap_messages as ldap
from tests.servers.answers import Entry
from tests.servers.ldap_messages import Search, matches

_RANGE = re.compile(r"(?P<name>[^;]+);range=(?P<low>\d+)-(?P<high>\d+|\*)", re.IGNORECASE)


class BadRange(Exception):
    """A range that begins behind the last value."""


def select(entries: Iterable[Entry], search: Search, max_values: int) -> list[Entry]:
    """What `search` finds, in the order of `entries`. Raises BadRange."""
    return [
        Entry(entry.dn, _shown(entry.attributes, search, max_values))
        for entry in entries
        if _in_scope(entry.dn, search) and matches(search.filter, _by_lower_case(entry.attributes))
    ]


def _in_scope(dn: str, search: Search) -> bool:
    dn, base = dn.lower(), search.base.lower()
    parent = re.split(r"(?<!\\),", dn, maxsplit=1)[-1]
    if search.scope == ldap.BASE:
        return dn == base
    if search.scope == ldap.ONE:
        return dn != base and parent == base
    return dn == base or dn.endswith(f",{base}")


def _by_lower_case(attributes: Mapping[str, Sequence[bytes]]) -> dict[str, Sequence[bytes]]:
    return {name.lower(): values for name, values in attributes.items()}


def _shown(
    attributes: Mapping[str, Sequence[bytes]], search: Search, max_values: int
) -> dict[str, Sequence[bytes]]:
    shown: dict[str, Sequence[bytes]] = {}
    wanted = [name.lower() for name in search.attributes]
    everything = not wanted or "*" in wanted
    for name, values in attributes.items():
        if everything or name.lower() in wanted:
            shown |= _whole(name, values, max_values)
        for asked in filter(None, map(_RANGE.fullmatch, search.attributes)):
            if asked["name"].lower() == name.lower():
                shown |= _part(name, values, asked, max_values)
    return dict.fromkeys(shown, ()) if search.types_only else shown


def _whole(name: str, values: Sequence[bytes], max_values: int) -> dict[str, Sequence[bytes]]:
    if len(values) <= max_values:
        return {name: values}
    # The attribute itself is there as well, and has no values (MS-ADTS, section 3.1.1.3.1.3.3).
    return {name: (), f"{name};range=0-{max_values - 1}": values[:max_values]}


def _part(
    name: str, values: Sequence[bytes], asked: re.Match[str], max_values: int
) -> dict[str, Sequence[bytes]]:
    low = int(asked["low"])
    if low >= len(values):
        raise BadRange(f"{name} has {len(values)} values")
    high = len(values) if asked["high"] == "*" else int(asked["high"]) + 1
    high = min(high, low + max_values)
    end = "*" if high >= len(values) else str(high - 1)
    return {f"{name};range={low}-{end}": values[low:high]}
