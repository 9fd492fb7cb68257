"""Who has an account, remembered: all are read once a day, new ones found by a small poll.

In: the admin API's list or, without the right to it, a question for each person (`matrix.accounts`). Out:
recorded localparts. Nobody's account goes by itself: a list of a day ago does until the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import timedelta

from aim.directory.roster import People
from aim.matrix.accounts import Accounts
from aim.matrix.mirror.events import is_plain
from aim.matrix.mirror.keeper import Keeper
from aim.ports import MirrorChanges, MirrorFacts

WHOLE_LIST = timedelta(hours=24)
MOST_QUESTIONS = 500
"""People without an account who are asked about again in one poll."""


class _Known:
    """The remembered accounts, as a container of localparts."""

    def __init__(self, keeper: Keeper) -> None:
        self._memory = keeper.memory

    def __contains__(self, localpart: object) -> bool:
        return isinstance(localpart, str) and self._memory.has_account(localpart)


class KnownAccounts:
    """Keeps the accounts."""

    def __init__(self, accounts: Accounts, keeper: Keeper) -> None:
        self._accounts = accounts
        self._keeper = keeper
        self._known = _Known(keeper)
        self._asked: dict[str, None] = {}
        """Whom we asked about, who had none then; the longest ago first."""
        self._may_list: bool | None = None
        self._turn = asyncio.Lock()

    async def poll(self, wanted: Collection[str]) -> bool:
        """True if one of the `wanted` localparts is found to have an account, and was not before.

        Raises HomeserverError, StoreError.
        """
        async with self._turn:
            return await self._poll(wanted)

    async def make_sure(self, wanted: Collection[str]) -> None:
        """The same, but only if there are people of whom we can't know yet. Raises the same."""
        async with self._turn:
            if self._may_list is None or (not self._may_list and self._never_asked(wanted)):
                await self._poll(wanted)

    async def found(self, localpart: str) -> None:
        """Somebody saw that this one has an account. Raises StoreError."""
        # A list that is being read meanwhile may be older.
        async with self._turn:
            if is_plain(localpart) and localpart not in self._known:
                await self._keeper.record(MirrorChanges(accounts={localpart}))

    def present(self) -> People:
        """Everybody who was seen to have one."""
        return self._keeper.memory.present()

    async def _poll(self, wanted: Collection[str]) -> bool:
        read_at, now = self._keeper.memory.facts.accounts_read_at, self._keeper.now()
        whole = read_at is None or now - read_at >= WHOLE_LIST
        listed = await (self._accounts.everyone() if whole else self._accounts.newest(self._known))
        self._may_list = listed is not None
        if listed is None:
            found = await self._accounts.asked(self._questions(wanted))
            changes = MirrorChanges(accounts=found)
        else:
            found = {name for name in listed if is_plain(name)}
            facts = MirrorFacts(accounts_read_at=now) if whole else MirrorFacts()
            news = found if whole else {name for name in found if name not in self._known}
            changes = MirrorChanges(accounts=news, only_these_accounts=whole, facts=facts)
        new = [name for name in wanted if name in found and name not in self._known]
        await self._keeper.record(changes)
        return bool(new)

    def _never_asked(self, wanted: Collection[str]) -> list[str]:
        return sorted(self._unknown(wanted).difference(self._asked))

    def _unknown(self, wanted: Collection[str]) -> set[str]:
        return set(wanted).difference(self._keeper.memory.roster.localparts(self.present()))

    def _questions(self, wanted: Collection[str]) -> list[str]:
        """Everybody whom we never asked about, and some of the others, in turns."""
        first, unknown = self._never_asked(wanted), self._unknown(wanted)
        again = [name for name in self._asked if name in unknown][:MOST_QUESTIONS]
        for name in (*again, *first):
            self._asked.pop(name, None)
            self._asked[name] = None
        return [*first, *again]
