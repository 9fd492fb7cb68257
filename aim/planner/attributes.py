"""Names and e-mail addresses of accounts: what differs from the directory. Pure.

In: a world in which accounts are known. Out: actions, and the addresses that can't be given. What agrees is
passed over by a look at each user, so that fifty thousand of them cost milliseconds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from aim.desired.leaving import AccountRules
from aim.directory.model import Problem, Severity, User
from aim.planner.actions import SetDisplayName, SetEmails, account_key, identity_of
from aim.planner.world import World
from aim.world.accounts import Account, KnownAccounts

_DIFFERS = "differs from the directory"


def attributes(
    world: World, rules: AccountRules, known: KnownAccounts
) -> tuple[list[SetDisplayName | SetEmails], list[Problem]]:
    """What is to be set on accounts that exist, and what stands against it."""
    users = world.desired.directory.users
    named, mailed = [], []
    for user in users:
        if not user.active:
            continue
        account = known.accounts.get(user.localpart)
        if account is None or account.deactivated:
            continue
        if user.display_name and account.display_name != user.display_name:
            named.append((user, account))
        # As with names: what the directory does not say, maybe as it could not be read, takes nothing away.
        if user.emails and account.emails is not None and account.emails != user.emails:
            mailed.append((user, account))
    actions: list[SetDisplayName | SetEmails] = []
    problems: list[Problem] = []
    if rules.display_names:
        actions.extend(_name(world, user, account) for user, account in _certain(world, named))
    if rules.emails and any(user.active for user in users):
        if any(user.emails for user in users if user.active):
            found = _Addresses(world, known, list(_certain(world, mailed)))
            actions.extend(found.actions())
            problems.extend(found.problems())
        else:
            problems.append(_no_addresses())
    return actions, problems


def _no_addresses() -> Problem:
    text = "no user of the directory has an e-mail address, so those of accounts are left as they are: see "
    return Problem(Severity.INFO, "emails", f"{text}whether the source's attributes name the right one")


def _certain(world: World, pairs: Iterable[tuple[User, Account]]) -> Iterator[tuple[User, Account]]:
    for user, account in pairs:
        if world.roster.number(user.localpart) not in world.desired.hands_off:
            yield user, account


def _mxid(world: World, localpart: str) -> str:
    return world.observed.mxid(localpart)


def _name(world: World, user: User, account: Account) -> SetDisplayName:
    mxid = _mxid(world, user.localpart)
    return SetDisplayName(
        room=account_key(mxid),
        space="",
        person=mxid,
        display_name=user.display_name or "",
        was=account.display_name,
        reason=_DIFFERS,
    )


@dataclass(frozen=True, slots=True)
class _Wish:
    """The addresses of one account, each by its comparison key."""

    localpart: str
    wanted: Mapping[str, str]
    present: Mapping[str, str]

    @property
    def new(self) -> frozenset[str]:
        return frozenset(self.wanted.keys() - self.present.keys())


class _Addresses:
    """Who gets which address. One address belongs to one account."""

    def __init__(self, world: World, known: KnownAccounts, differing: Iterable[tuple[User, Account]]) -> None:
        self._world = world
        self._owners = known.owners
        wishes = (
            _Wish(user.localpart, _by_key(user.emails), _by_key(account.emails or ()))
            for user, account in differing
        )
        self._wishes = {wish.localpart: wish for wish in wishes if wish.wanted.keys() != wish.present.keys()}
        self._claims = self._claimed_twice()

    def _claimed_twice(self) -> Mapping[str, list[str]]:
        """Address → localparts of the users who have it, where those are several."""
        asked = set(chain.from_iterable(wish.wanted for wish in self._wishes.values()))
        claims: dict[str, list[str]] = defaultdict(list)
        if asked:
            for user in self._world.desired.directory.users:
                for key in _by_key(user.emails) if user.active and user.emails else ():
                    if key in asked:
                        claims[key].append(user.localpart)
        return {key: sorted(names) for key, names in claims.items() if len(names) > 1}

    def actions(self) -> Iterator[SetEmails]:
        for wish in self._wishes.values():
            target = self._target(wish)
            if target.keys() != wish.present.keys():
                yield self._set(wish, target)

    def _target(self, wish: _Wish) -> dict[str, str]:
        """What the account shall have: contested addresses stay where they are."""
        given = {key: text for key, text in wish.wanted.items() if not self._is_withheld(wish, key)}
        kept = {key: text for key, text in wish.present.items() if key in self._claims and key in wish.wanted}
        return given | kept

    def _is_withheld(self, wish: _Wish, key: str) -> bool:
        owner = self._other_owner(wish, key)
        return key in self._claims or (owner is not None and not self._lets_go(owner, key))

    def _other_owner(self, wish: _Wish, key: str) -> str | None:
        owner = self._owners.get(key) if key not in wish.present else None
        return None if owner == wish.localpart else owner

    def _lets_go(self, owner: str, key: str) -> bool:
        """Whether another account loses the address by this very plan, and waits for nobody itself."""
        wish = self._wishes.get(owner)
        if wish is None or key not in wish.present or key in wish.wanted:
            return False
        return all(self._other_owner(wish, other) is None for other in wish.new)

    def _set(self, wish: _Wish, target: Mapping[str, str]) -> SetEmails:
        mxid = _mxid(self._world, wish.localpart)
        owners = {self._other_owner(wish, key) for key in target} - {None}
        before = sorted(identity_of(SetEmails.type, "", _mxid(self._world, str(owner))) for owner in owners)
        return SetEmails(
            room=account_key(mxid),
            space="",
            person=mxid,
            emails=tuple(sorted(target.values())),
            was=tuple(sorted(wish.present.values())),
            reason=_DIFFERS,
            after=tuple(before),
        )

    def problems(self) -> Iterator[Problem]:
        for wish in self._wishes.values():
            for key in wish.new:
                owner = self._other_owner(wish, key)
                if owner is not None and key not in self._claims and not self._lets_go(owner, key):
                    yield self._taken(wish, key, owner)
        for key, names in self._claims.items():
            listed = " and ".join(_mxid(self._world, name) for name in names)
            text = (
                f"is the address of {listed} in the directory: it can belong to one account only, so nobody"
            )
            yield Problem(Severity.WARNING, key, f"{text} is given it or loses it; mend it there")

    def _taken(self, wish: _Wish, key: str, owner: str) -> Problem:
        mxid, other = _mxid(self._world, wish.localpart), _mxid(self._world, owner)
        text = f"should have the address {wish.wanted[key]}, which {other} has: take it from that one first"
        return Problem(Severity.WARNING, mxid, text)


def _by_key(addresses: Iterable[str]) -> dict[str, str]:
    return {address.casefold(): address for address in addresses}
