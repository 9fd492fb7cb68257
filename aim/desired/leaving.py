"""Who leaves: who was in the directory before, is not (or is disabled) now, and has an account. Pure.

In: configuration, directory, observed accounts, what is recorded, and who must not be touched. Out: who may
be locked and, once they have waited, erased; who stays in the rooms meanwhile; who of the queue is back.
Whether an account is to be locked or erased today is the planner's business (`planner.leavers`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from aim.config.root import Config
from aim.directory.model import Directory, User
from aim.directory.roster import NOBODY, People
from aim.world.accounts import Account, KnownAccounts
from aim.world.recorded import Recorded, Seen
from aim.world.rooms import Observed


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountRules:
    """What the configuration asks for of accounts (`userProvisioner`)."""

    display_names: bool
    emails: bool
    deprovisions: bool
    """Whether who leaves is locked and, in the end, erased."""
    period: timedelta
    """How long between the two."""
    include_admins: bool
    protected: frozenset[str] = frozenset()
    """Localparts that are never locked or erased, whatever else is asked for: those we act as."""


@dataclass(frozen=True, slots=True)
class Left:
    """Somebody who left, and whose account may be locked."""

    user_id: str
    localpart: str
    disabled: bool
    """True: still in the directory, and disabled there."""

    @property
    def reason(self) -> str:
        return "disabled in the directory" if self.disabled else "no longer in the directory"


@dataclass(frozen=True, slots=True)
class Leaving:
    """Everything about those who left and those who are on the queue."""

    left: Mapping[str, Left] = field(default_factory=dict)
    """By localpart. Those whom somebody restored are not among them."""
    stays: People = NOBODY
    """Who left and keeps memberships and power levels all the same. Nobody of whom it is in doubt who they
    are."""
    back: Mapping[str, str] = field(default_factory=dict)
    """User ids of those on the queue who are active in the directory again → their localpart there."""
    period: timedelta = timedelta()
    """How long who leaves now has before them."""


def account_rules(config: Config) -> AccountRules | None:
    """None: nothing is asked for of accounts."""
    wanted = config.user_provisioner
    if wanted is None:
        return None
    return AccountRules(
        display_names="displayName" in wanted.synced_attributes,
        emails="emails" in wanted.synced_attributes,
        deprovisions=wanted.deprovisioning.enabled,
        period=config.soft_delete_period,
        include_admins=wanted.deprovisioning.include_admins,
        protected=frozenset(
            name for name in (config.appservice.sender_localpart, config.homeserver.admin_user) if name
        ),
    )


def asked_about(directory: Directory, recorded: Recorded) -> Mapping[str, Collection[str]]:
    """Whose accounts have to be known: localpart → the addresses that the directory gives them.

    Those seen before and those on the queue are among them: whose account is not known is not locked.
    """
    wanted: dict[str, Collection[str]] = {seen.localpart: () for seen in recorded.seen.values()}
    wanted |= {queued.localpart: () for queued in recorded.queue.values()}
    wanted |= {user.localpart: user.emails for user in directory.users}
    return wanted


def leaving(
    config: Config, directory: Directory, observed: Observed, recorded: Recorded, untouched: People
) -> Leaving:
    """Who leaves. `untouched` are those of whom it is in doubt who they are, and our own bot."""
    rules, queue = account_rules(config), recorded.queue
    if rules is None and not queue:
        return Leaving()
    present = {user.id: user for user in directory.users}
    left: Mapping[str, Left] = {}
    # Who waits stays, although nobody asks for anything of accounts any more: we locked them.
    names = {queued.localpart for queued in queue.values() if not _is_active(present, queued.user_id)}
    if rules is not None:
        restored = {user_id for user_id, queued in queue.items() if queued.restored_by is not None}
        candidates = [
            (seen, user)
            for seen, user in _gone(directory, present, recorded)
            if seen.id not in restored and _is_certain(directory, seen.localpart, untouched)
        ]
        known = usable(observed.known_accounts)
        if known is not None:
            left = _left(candidates, known, _may_leave(config, rules, observed))
        if rules.deprovisions:
            # While accounts can't be managed nobody is locked, and nobody is removed in place of it.
            names |= left.keys() if known is not None else {seen.localpart for seen, _ in candidates}
    return Leaving(
        left=left,
        stays=directory.roster.people(sorted(names)) - untouched - directory.everyone,
        back={user_id: present[user_id].localpart for user_id in queue if _is_active(present, user_id)},
        period=config.soft_delete_period,
    )


def _may_leave(config: Config, rules: AccountRules, observed: Observed) -> Callable[[Seen, Account], bool]:
    def may_leave(seen: Seen, account: Account) -> bool:
        mxid = observed.mxid(seen.localpart)
        protected = (
            mxid == observed.bot or seen.localpart in rules.protected or config.provisioner.allows(mxid)
        )
        return not protected and (rules.include_admins or not account.admin)

    return may_leave


def usable(known: KnownAccounts | None) -> KnownAccounts | None:
    """What is known of accounts, if they can be managed at all."""
    return None if known is None or known.refused else known


def gone_for_good(directory: Directory, observed: Observed) -> People:
    """Active users of the directory whose account was deactivated or erased: it can't be had back."""
    known = usable(observed.known_accounts)
    if known is None:
        return NOBODY
    names = [account.localpart for account in known.accounts.values() if account.deactivated]
    return directory.roster.people(sorted(names)) & directory.everyone if names else NOBODY


def _is_active(present: Mapping[str, User], user_id: str) -> bool:
    user = present.get(user_id)
    return user is not None and user.active


def _gone(
    directory: Directory, present: Mapping[str, User], recorded: Recorded
) -> Iterator[tuple[Seen, User | None]]:
    """Who was seen in an earlier cycle, by an id to rely on, and is not active now."""
    for seen in recorded.seen.values():
        user = present.get(seen.id)
        if user is None:
            if not seen.weak_id and seen.id not in directory.unresolved:
                yield seen, None
        elif not (user.active or user.weak_id or seen.weak_id):
            yield seen, user


def _is_certain(directory: Directory, localpart: str, untouched: People) -> bool:
    """Whether the account of that name is theirs: nobody claims it, and nobody else has it now."""
    number = directory.roster.find(localpart)
    return number is None or not (number in untouched or number in directory.everyone)


def _left(
    candidates: Iterable[tuple[Seen, User | None]],
    known: KnownAccounts,
    may_leave: Callable[[Seen, Account], bool],
) -> Mapping[str, Left]:
    found: dict[str, Left] = {}
    several: set[str] = set()
    for seen, user in candidates:
        account = known.accounts.get(seen.localpart)
        if account is None or account.deactivated or not may_leave(seen, account):
            continue
        if seen.localpart in found:
            # Two who left had that name: whose account it was nobody can tell.
            several.add(seen.localpart)
        found[seen.localpart] = Left(seen.id, seen.localpart, user is not None)
    return {name: left for name, left in found.items() if name not in several} if several else found
