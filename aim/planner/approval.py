"""`aim approve`: lets exactly the held actions of one plan go, for a while. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from aim.errors import PlanError
from aim.world.recorded import Approval

VALID_FOR = timedelta(hours=24)
_SHORTEST = 12


def names(wanted: str, digest: str) -> bool:
    """Whether `wanted`, as a person typed it, is that digest: whole, or its first 12 or more digits."""
    given = wanted.removeprefix("sha256:")
    return len(given) >= _SHORTEST and digest.removeprefix("sha256:").startswith(given)


def approvals(held: Iterable[str], approved_by: str, now: datetime) -> tuple[Approval, ...]:
    """Approvals for these identities, good for 24 hours. Raises PlanError if nothing is held."""
    found = tuple(Approval(identity, approved_by, now + VALID_FOR) for identity in sorted(held))
    if not found:
        raise PlanError(
            "that plan holds nothing any more: there is nothing to approve",
            "what it held was approved already, or is no longer due; `aim plan` shows what is left",
        )
    return found
