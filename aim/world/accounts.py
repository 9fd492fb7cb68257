"""Accounts on the homeserver as they were last read. Plain frozen data.

Filled by `matrix.book` from what keeps the accounts (Synapse's admin API, or the Matrix Authentication
Service); read by the planner. Present only where the configuration asks for accounts (`userProvisioner`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Account:
    """One account of our homeserver."""

    localpart: str
    display_name: str | None = None
    """None: it has none."""
    emails: tuple[str, ...] | None = None
    """Sorted, as the homeserver spells them; None: not read, as nobody needs them."""
    locked: bool = False
    deactivated: bool = False
    """True for one that was deactivated, erased or not: it can't be had back."""
    admin: bool = False
    """Whether it is an administrator of the homeserver (or of the Matrix Authentication Service)."""


@dataclass(frozen=True, slots=True)
class KnownAccounts:
    """The accounts of those who were asked about."""

    accounts: Mapping[str, Account] = field(default_factory=dict)
    """By localpart; who is not in it has no account."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """E-mail address (case-folded) → localpart of the account that has it, for addresses that an account
    lacks and another one has."""
    refused: str = ""
    """Why accounts can't be managed at all, in words; "": they can."""
