"""Replaces names in entries, consistently: what was equal stays equal, and nobody can be recognised. Pure.

For reports of faults: the shape of the directory, its ids, classes and flags stay: a fault may hang on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

from aim.directory import dn
from aim.directory.entries import Entry, Rules, Value, text

_KEPT = frozenset(
    {
        *("objectclass", "useraccountcontrol", "nsaccountlock", "pwdaccountlockedtime"),
        *("entryuuid", "objectguid", "nsuniqueid", "ipauniqueid", "objectsid", "primarygroupid"),
    }
)
_DNS = frozenset({"member", "uniquemember"})
_UNIQUE_SUFFIX = "#'"
"""Before the bit string that may follow the DN in a uniqueMember (RFC 4517, 3.3.21)."""


def in_use(entries: Iterable[Entry], rules: Rules) -> Iterator[Entry]:
    """The same entries without attributes that flattening never looks at."""
    for entry in entries:
        kept = {name: values for name, values in entry.attributes.items() if name in rules.attributes}
        yield Entry(entry.dn, kept)


def redacted(entries: Iterable[Entry], rules: Rules) -> Iterator[Entry]:
    """The same, with every name replaced."""
    pseudonyms = _Pseudonyms(_KEPT | {name.lower() for name in rules.enabled})
    for entry in in_use(entries, rules):
        made = {name: pseudonyms.of_values(name, values) for name, values in entry.attributes.items()}
        yield Entry(pseudonyms.of_dn(entry.dn), made)


class _Pseudonyms:
    """Hands out names in the order in which the real ones are met."""

    def __init__(self, kept: Set[str]) -> None:
        """`kept`: attributes whose values stay as they are."""
        self._kept = kept
        self._names: dict[str, str] = {}

    def of_values(self, attribute: str, values: Sequence[Value]) -> list[Value]:
        """The values of one attribute."""
        if attribute in self._kept:
            return list(values)
        if attribute in _DNS:
            return [self.of_dn(text(value)) for value in values]
        return [self._of_text(text(value)) for value in values]

    def of_dn(self, spelled: str) -> str:
        """A DN with the same types; one that is malformed becomes a plain name."""
        plain, mark, suffix = spelled.partition(_UNIQUE_SUFFIX)
        try:
            rdns = dn.parse(plain)
        except ValueError:
            return self._of(spelled)
        made = ",".join("+".join(f"{kind}={self._of(value)}" for kind, value in rdn) for rdn in rdns)
        return made + mark + suffix

    def _of_text(self, value: str) -> str:
        local, at, domain = value.rpartition("@")
        return f"{self._of(local)}@{self._of(domain)}.example" if at else self._of(value)

    def _of(self, value: str) -> str:
        key = dn.prepare(value)
        return self._names.setdefault(key, f"n{len(self._names) + 1}") if key else value
