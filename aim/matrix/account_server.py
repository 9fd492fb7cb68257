"""What keeps the accounts, as the rest of `matrix` asks it: Synapse itself, or the Matrix Authentication
Service. Implemented by `synapse` and `mas`; asked by `book`. Reads only: who writes has another type.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Container, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from aim.world.accounts import Account

PAGE = 1000
"""Accounts in one page of the list."""
NOT_PERMITTED = frozenset({401, 403, 404})
"""Statuses of a server that does not let us see accounts. 404: a proxy that hides the admin API."""
NEWEST = 50
"""How many of the newest accounts one poll looks at."""


class Attribute(StrEnum):
    """What can follow the directory; named as the configuration's `syncedAttributes` name it."""

    DISPLAY_NAME = "displayName"
    EMAILS = "emails"


Attributes = Collection[Attribute]


class AccountServer(Protocol):
    """Reads accounts, and has no way to change one.

    All raise HomeserverRefused (also when we may not see accounts at all) or HomeserverUnavailable. An
    account's `emails` are sorted; what was not asked for is None.
    """

    @property
    def listed(self) -> frozenset[Attribute]:
        """What the list of accounts gives along with each."""
        ...

    @property
    def in_pages(self) -> frozenset[Attribute]:
        """What can be had of all accounts by pages, besides."""
        ...

    def accounts(self) -> AsyncIterator[Sequence[Account]]:
        """All accounts, page by page, deactivated and locked ones too, but no guests."""
        ...

    def deactivated(self) -> AsyncIterator[Sequence[Account]]:
        """Those of them that were deactivated."""
        ...

    async def newest(self, known: Container[str]) -> list[Account]:
        """The newest accounts, as far as they are not `known` (localparts) and not deactivated. Looks at one
        page after the other until there is nobody new on one."""
        ...

    async def account(self, localpart: str, attributes: Attributes) -> Account | None:
        """One account with at least these attributes; None if there is none of that name."""
        ...

    async def details(self, account: Account, attributes: Attributes) -> Account | None:
        """The same account with these attributes read anew, in as few requests as that takes."""
        ...

    def emails(self) -> AsyncIterator[Mapping[str, Sequence[str]]]:
        """The e-mail addresses of everybody, page by page: localpart → some of theirs. Only where `in_pages`
        says so."""
        ...

    async def owner(self, address: str) -> str | None:
        """The localpart of the account that has this e-mail address."""
        ...

    async def permitted(self) -> None:
        """Raises HomeserverRefused, with what to do about it, if we may not see accounts. One request."""
        ...


def same_address(one: str) -> str:
    """What two spellings of one e-mail address have in common: homeservers don't tell upper from lower
    case."""
    return one.casefold()


def taken(address: str, owner: str, mxid: str) -> tuple[str, str]:
    """Message and remedy for an address that is another account's; both are MXIDs."""
    return (
        f"{mxid} can't have the e-mail address {address}: it belongs to {owner}",
        "an address belongs to one account: give it to one of the two in the directory, or take it from the "
        "other account",
    )


def nobody(mxid: str) -> tuple[str, str]:
    """Message and remedy for an account that does not exist."""
    return (f"{mxid} has no account", "nothing has to be done: the login makes it")
