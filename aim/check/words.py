"""How findings are worded: what all questions of `aim check` share."""

from __future__ import annotations

from datetime import timedelta

from aim.errors import AimError
from aim.matrix.check import Finding, Verdict

SOON = timedelta(days=30)
"""How long before its end a certificate, or a secret, is warned of."""


def failed(name: str, error: AimError) -> Finding:
    return Finding(name, Verdict.FAIL, error.message, error.remedy)


def count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
