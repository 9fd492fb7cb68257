"""Entries of people become users, and users are told apart. Pure.

In come the entries that `kinds` calls people; out go users whom a localpart names without doubt, and for all
others a problem and what is needed to leave them alone: their ids and, where people clash, the localparts.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from aim.directory.entries import Attributes, Entry, Rules, candidates, first, sid, stable_id, texts
from aim.directory.localpart import localpart_of
from aim.directory.model import Problem, Severity, User

MAX_LOCALPART = 200
"""An MXID has at most 255 bytes (Matrix specification, appendices); this leaves 53 for the server's name."""

_SHOWN = 5
"""How many a message names."""

# userAccountControl (MS-ADTS, 2.2.16)
_ACCOUNT_DISABLE = 0x2
_TRUST_ACCOUNT = 0x0800 | 0x1000 | 0x2000  # of another domain, a workstation or a domain controller

_LOCKED_FOR_GOOD = "000001010000Z"
"""pwdAccountLockedTime of an account that an administrator locked (Behera draft, 5.3.3)."""


class Person(NamedTuple):
    """A user and what is needed to find them as a member."""

    user: User
    key: str
    """Canonical DN."""
    other_uids: tuple[str, ...]
    """Further user names that memberUid may call them by."""
    primary_group: str | None
    """SID of the Active Directory group that holds them without listing them."""


@dataclass(slots=True)
class Settled:
    """People told apart."""

    people: list[Person] = field(default_factory=list)
    """Sorted by id."""
    contested: list[str] = field(default_factory=list)
    """Localparts that must not be touched."""
    unresolved: set[str] = field(default_factory=set)
    """Ids of people who could not be made users."""
    problems: list[Problem] = field(default_factory=list)


_NO = frozenset({"false", "0", "no", "off", "n", "f"})


def is_trust_account(attributes: Attributes) -> bool:
    """True for the accounts of trust between Active Directory domains: `user` by class, but nobody."""
    return "useraccountcontrol" in attributes and bool(_account_control(attributes) & _TRUST_ACCOUNT)


def is_active(attributes: Attributes, enabled: Iterable[str] = ()) -> bool:
    """False for an account that somebody disabled: as its kind of server marks it, or by `enabled`.

    An `enabled` attribute that is missing says nothing; a value such as FALSE or 0 says no.

    An account that is locked for a while after wrong passwords is active: else anybody who knows a user
    name could have its owner removed from every room.
    """
    if "useraccountcontrol" in attributes and _account_control(attributes) & _ACCOUNT_DISABLE:
        return False
    if "nsaccountlock" in attributes and "TRUE" in (v.upper() for v in texts(attributes, "nsaccountlock")):
        return False
    if any(value.strip().lower() in _NO for value in candidates(attributes, enabled)):
        return False
    return "pwdaccountlockedtime" not in attributes or _LOCKED_FOR_GOOD not in texts(
        attributes, "pwdaccountlockedtime"
    )


def _picture(attributes: Attributes, names: Iterable[str]) -> str | None:
    """The hash of the picture in the first of these attributes that has one."""
    for name in names:
        pictures = [value.encode() if isinstance(value, str) else value for value in attributes.get(name, ())]
        found = min(filter(None, pictures), default=None)
        if found is not None:
            return hashlib.sha256(found).hexdigest()
    return None


def _account_control(attributes: Attributes) -> int:
    try:
        return int(next(iter(texts(attributes, "useraccountcontrol")), "0"))
    except ValueError:
        return 0


class Reader:
    """Reads people one by one; `settle` ends it."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._people: list[Person] = []
        self._ids: list[str] = []
        self._dns: list[str] = []
        """Of everybody, usable or not."""
        self._settled = Settled()

    def add(self, entry: Entry, key: str) -> None:
        """Reads one person, `key` being their canonical DN."""
        dn, attributes = entry
        strong = stable_id(attributes, self._rules.id)
        self._ids.append(strong or key)
        self._dns.append(dn)
        uids = candidates(attributes, self._rules.uid)
        localpart = self._localpart(dn, uids)
        if localpart is None:
            self._settled.unresolved.add(strong or key)
            return
        user = User(
            id=strong or key,
            uid=uids[0],
            localpart=localpart,
            display_name=first(attributes, self._rules.name),
            emails=emails_of(candidates(attributes, self._rules.mail)),
            active=is_active(attributes, self._rules.enabled),
            dn=dn,
            weak_id=strong is None,
            avatar=_picture(attributes, self._rules.avatar),
        )
        others = () if len(uids) == 1 and self._rules.uid[:1] == ("uid",) else _other_uids(attributes, uids)
        self._people.append(Person(user, key, others, _primary_group(attributes)))

    def _localpart(self, dn: str, uids: list[str]) -> str | None:
        """The localpart of these user names, or None and a problem."""
        problem = _uid_problem(uids, self._rules)
        if problem:
            self._warn(dn, problem)
            return None
        if len(uids) > 1:
            self._warn(dn, f"has {len(uids)} user names; {uids[0]!r}, the first in order, is used")
        localpart = localpart_of(uids[0])
        if len(localpart) > MAX_LOCALPART:
            self._warn(dn, f"its user name gives a localpart of {len(localpart)} characters: skipped")
            return None
        return localpart

    def _warn(self, dn: str, message: str) -> None:
        self._settled.problems.append(Problem(Severity.WARNING, dn, message))

    def settle(self) -> Settled:
        """Tells the people apart: who shares an id or a localpart with another is no user."""
        settled = self._settled
        self._people = _by_id(self._people)
        same_id = _shared(zip(self._ids, self._dns, strict=True))
        same_localpart = _shared((person.user.localpart, person.user.dn or "") for person in self._people)
        settled.problems += _clashes(same_id, "entries have this id")
        settled.problems += _clashes(same_localpart, "users come to this localpart")
        doubtful = {person.user.localpart for person in self._people if person.user.id in same_id}
        doubtful.update(same_localpart)
        settled.people = [person for person in self._people if person.user.localpart not in doubtful]
        settled.unresolved.update(p.user.id for p in self._people if p.user.localpart in doubtful)
        settled.contested = sorted(doubtful)
        return settled


def _by_id(people: Iterable[Person]) -> list[Person]:
    """Sorted by id, then DN. In many small steps: one large sort would keep every other thread waiting."""
    buckets: defaultdict[str, list[Person]] = defaultdict(list)
    for person in people:
        buckets[person.user.id[:2]].append(person)
    found = []
    for _, bucket in sorted(buckets.items()):
        found += sorted(bucket, key=lambda person: (person.user.id, person.key))
    return found


def _other_uids(attributes: Attributes, uids: list[str]) -> tuple[str, ...]:
    """`uid` counts even where another attribute names the users, for memberUid means `uid` (RFC 2307)."""
    return tuple(uid for uid in (*uids[1:], *texts(attributes, "uid")) if uid != uids[0])


def _uid_problem(uids: list[str], rules: Rules) -> str | None:
    if not uids:
        return f"has no user name (no value of {' or '.join(rules.uid)}): skipped"
    if "\ufffd" in uids[0]:
        return "its user name is not UTF-8: skipped"
    return None


def _shared(keyed: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    """Key → DNs, sorted, for the keys that two or more have."""
    once: dict[str, str] = {}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for key, dn in keyed:
        earlier = once.setdefault(key, dn)
        if earlier is not dn:
            found[key].append(dn)
    return {key: sorted([once[key], *dns]) for key, dns in found.items()}


def _clashes(shared: Mapping[str, list[str]], what: str) -> list[Problem]:
    return [clash(subject, dns, what) for subject, dns in shared.items()]


def clash(subject: str, names: Sequence[str], what: str) -> Problem:
    """Says that those of these names, sorted, share what only one may have."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    message = f"{len(names)} {what}: {'; '.join(names[:_SHOWN])}{more}. None of them is touched"
    return Problem(Severity.ERROR, subject, message)


def emails_of(values: Iterable[str]) -> tuple[str, ...]:
    """Addresses as homeservers keep them (MSC2265): local part case-folded, domain in lower case; sorted."""
    found = set()
    for value in values:
        local, at, domain = value.partition("@")
        if local and at and domain and "@" not in domain:
            found.add(f"{local.casefold()}@{domain.lower()}")
    return tuple(sorted(found))


def _primary_group(attributes: Attributes) -> str | None:
    """The SID of the primary group: the person's own with primaryGroupID as its last part (MS-ADTS)."""
    if "primarygroupid" not in attributes:
        return None
    own = next(iter(attributes.get("objectsid", ())), None)
    spelled = sid(own) if own is not None else None
    relative = texts(attributes, "primarygroupid")
    return f"{spelled.rpartition('-')[0]}-{relative[0]}" if spelled and relative else None
