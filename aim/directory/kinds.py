"""What an entry is, by its object classes: a person, a container of people, both, or neither. Pure.

- Computers and managed service accounts of Active Directory carry the classes of people too, and contacts
  do without having an account: neither is a person.
- An entry can be both (a user with `posixGroup` for their private group): then it is a user *and* a
  container that holds that user. So nobody is lost whichever of the two was meant.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from aim.directory.entries import Value, text
from aim.directory.model import GroupKind

_PEOPLE = frozenset(
    {
        "person",
        "organizationalperson",
        "inetorgperson",
        "residentialperson",
        "pilotperson",
        "newpilotperson",
        "user",
        "inetuser",
        "posixaccount",
        "account",
    }
)
_NO_PEOPLE = frozenset(
    {
        "computer",
        "contact",
        "msds-managedserviceaccount",
        "msds-groupmanagedserviceaccount",
        "msds-delegatedmanagedserviceaccount",
    }
)
# In order of precedence: an entry with the classes of two is the first.
_CONTAINERS = (
    (
        GroupKind.GROUP,
        frozenset({"group", "groupofnames", "groupofuniquenames", "groupofmembers", "posixgroup"}),
    ),
    (GroupKind.DOMAIN, frozenset({"domain", "dcobject", "domaindns", "organization"})),
    (GroupKind.OU, frozenset({"organizationalunit"})),
)


class Kind(NamedTuple):
    """What an entry is."""

    is_person: bool
    container: GroupKind | None


@lru_cache(maxsize=4096)
def kind_of(object_classes: tuple[Value, ...]) -> Kind:
    """The kind of an entry with these values of objectClass, in any case and order."""
    classes = {text(value).strip().lower() for value in object_classes}
    container = next((kind for kind, names in _CONTAINERS if classes & names), None)
    return Kind(bool(classes & _PEOPLE) and not classes & _NO_PEOPLE, container)
