"""The problem for an `externalId` that names no group, with the nearest ones that exist."""

from __future__ import annotations

from difflib import get_close_matches

from aim.directory.model import Directory, Problem, Severity

_CANDIDATES = 5000
"""Comparing is slow: in a larger directory only ids that share a beginning or a name part are compared."""


def unknown_group(directory: Directory, space: str, external_id: str) -> Problem:
    """Says that `external_id`, used by `space`, matches nothing."""
    near = nearest(directory, external_id)
    hint = f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    return Problem(
        Severity.WARNING,
        space,
        f"no group in the directory is named {external_id!r}{hint}; until that is mended, nobody who is in "
        "the directory is removed from this space or one above it, or demoted there",
    )


def nearest(directory: Directory, external_id: str, *, count: int = 3) -> list[str]:
    """Up to `count` ids of groups that look like `external_id`, the nearest first."""
    wanted = external_id.casefold()
    names: dict[str, str] = {}
    for group in directory.groups:
        names.setdefault(group.id.casefold(), group.id)
        names.setdefault(group.name.casefold(), group.id)
    candidates = list(names)
    if len(candidates) > _CANDIDATES:
        first = wanted.split(",", 1)[0]
        stem = first.rpartition("=")[2][:3]
        candidates = [name for name in candidates if stem in name][:_CANDIDATES]
    found: list[str] = []
    for name in get_close_matches(wanted, candidates, n=2 * count, cutoff=0.6):
        if names[name] not in found:
            found.append(names[name])
    return found[:count]
