"""Who a person is: compares the directory's (id, localpart) pairs with those seen before.

In: a directory and what is recorded. Out: who must not be touched, and the problem that says why. A known
localpart with a new id may be a new colleague of the same name; a known id with a new localpart may be a
marriage or a mistake. Nobody but a person can tell, by `aim rebind`.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aim.directory.model import Directory, Problem, Severity, User
from aim.directory.roster import People
from aim.world.recorded import Recorded, Seen


@dataclass(frozen=True, slots=True)
class Conflict:
    """A user who may or may not be the person seen before."""

    user: User
    seen: Seen

    @property
    def is_new_id(self) -> bool:
        """True: known localpart with a new id. False: known id with a new localpart."""
        return self.user.id != self.seen.id

    def problem(self, server_name: str) -> Problem:
        """Names both sides and the command that settles it."""
        if self.is_new_id:
            return Problem(
                Severity.ERROR,
                f"@{self.user.localpart}:{server_name}",
                f"was the account of the user with id {self.seen.id}, and the directory now gives it to id "
                f"{self.user.id}; it is not touched. If both are the same person: "
                f"{_rebind(self.seen.id, self.user.id)}",
            )
        old, new = f"@{self.seen.localpart}:{server_name}", f"@{self.user.localpart}:{server_name}"
        return Problem(
            Severity.ERROR,
            new,
            f"the user with id {self.user.id} was {old} before and is {new} now; neither account is touched. "
            f"If the new account is theirs: {_rebind(old, new)}",
        )


def _rebind(old: str, new: str) -> str:
    """The command, as a shell takes it: an id may be a DN."""
    return f"aim rebind {shlex.quote(old)} {shlex.quote(new)}"


def conflicts(users: Iterable[User], seen: Mapping[str, Seen]) -> tuple[Conflict, ...]:
    """All users whose id or localpart was seen before, but not together. Sorted by localpart, then id."""
    found: list[Conflict] = []
    newcomers: dict[str, User] = {}
    for user in users:
        known = seen.get(user.id)
        if known is None:
            newcomers[user.localpart] = user
        elif known.localpart != user.localpart:
            found.append(Conflict(user, known))
            # The new localpart may have been somebody else's, too.
            newcomers[user.localpart] = user
    if newcomers and seen:
        found.extend(_claimed_before(newcomers, seen))
    return tuple(sorted(found, key=lambda conflict: (conflict.user.localpart, conflict.seen.id)))


def _claimed_before(newcomers: Mapping[str, User], seen: Mapping[str, Seen]) -> Iterator[Conflict]:
    for known in [known for known in seen.values() if known.localpart in newcomers]:
        user = newcomers[known.localpart]
        if user.id != known.id:
            yield Conflict(user, known)


_MANY = 3
"""So many new ids are more than a few new colleagues of the same names, if they are most of those known."""


def known_before(recorded: Recorded, found: Iterable[Conflict]) -> tuple[Seen, ...]:
    """Who was in the directory until its ids changed, if they did; `found` are all conflicts.

    Those last seen present; and if most whose localpart has a new id were missed at one moment, everybody
    missed then: a cycle took them for leavers. Who had left at another time is not among them, as a new user
    of that name may be anybody.
    """
    moments = Counter(conflict.seen.gone_since for conflict in found if conflict.is_new_id)
    total = sum(moments.values())
    at = next((at for at, many in moments.items() if many >= _MANY and 2 * many > total), None)
    return tuple(
        seen
        for seen in recorded.seen.values()
        if seen.gone_since is None or (at is not None and seen.gone_since == at)
    )


def has_switched(directory: Directory, recorded: Recorded, found: Sequence[Conflict]) -> bool:
    """Whether the directory knows other ids than those seen before; `found` are all conflicts.

    Either its source is another one and has fewer than half of the ids (where it has more, as an LDIF export
    of the LDAP server that was read before, both mean the same people); or, of whatever source it is, at
    least three, and more than half of those known, have their localparts under new ids.
    """
    is_other = recorded.source not in {None, directory.source}
    renamed = {conflict.seen.id for conflict in found if conflict.is_new_id}
    if not is_other and len(renamed) < _MANY:
        # The usual case, and a look at everybody would be one for each event.
        return False
    known = known_before(recorded, found)
    if is_other and has_other_ids(directory, known):
        return True
    ids = {user.id for user in directory.users}
    many = sum(seen.id in renamed and seen.id not in ids for seen in known)
    return many >= _MANY and 2 * many > len(known)


def has_other_ids(directory: Directory, known: Sequence[Seen]) -> bool:
    """Whether fewer than half of those known before are in the directory, by their ids."""
    ids = {user.id for user in directory.users}
    return 2 * sum(seen.id in ids for seen in known) < len(known)


def switched_problem(directory: Directory, recorded: Recorded, found: Sequence[Conflict]) -> Problem:
    """Of the whole source, instead of one for each person."""
    known = known_before(recorded, found)
    names = {user.localpart for user in directory.users}
    is_same = recorded.source in {None, directory.source}
    since = "before, and the source" if is_same else f"the source {recorded.source}, and {directory.source}"
    return Problem(
        Severity.ERROR,
        "source",
        f"{len(known)} users are known from {since} has most of their ids not; "
        f"{sum(seen.localpart in names for seen in known)} of them have the same localpart there. None of "
        "them is touched, nor believed to have left; if these are the same people: aim rebind --by-localpart",
    )


def hands_off(directory: Directory, recorded: Recorded, found: Iterable[Conflict]) -> People:
    """Who is not touched: contested localparts, both sides of conflicts, known but unreadable users."""
    number = directory.roster.number
    people = set(directory.contested)
    for conflict in found:
        people.add(number(conflict.user.localpart))
        people.add(number(conflict.seen.localpart))
    for user_id in directory.unresolved:
        known = recorded.seen.get(user_id)
        if known is not None:
            people.add(number(known.localpart))
    return People(people)
