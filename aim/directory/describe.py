"""A Directory as plain JSON values, as `aim directory --json` prints it. Pure.

In comes a Directory of any source; out go dicts and lists in a stable order, without roster numbers.
"""

from __future__ import annotations

from typing import Any

from aim.directory.model import Directory, Group, Problem, User
from aim.directory.roster import Roster


def to_json(directory: Directory) -> dict[str, Any]:
    """`{"users": […], "groups": […], "problems": […]}`; members: sorted localparts."""
    return {
        "users": [_user(user) for user in directory.users],
        "groups": [_group(group, directory.roster) for group in directory.groups],
        "problems": [_problem(problem) for problem in directory.problems],
    }


def _user(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "uid": user.uid,
        "localpart": user.localpart,
        "display_name": user.display_name,
        "emails": list(user.emails),
        "active": user.active,
        "dn": user.dn,
    }


def _group(group: Group, roster: Roster) -> dict[str, Any]:
    return {
        "id": group.id,
        "kind": group.kind.value,
        "name": group.name,
        "members": roster.localparts(group.members),
    }


def _problem(problem: Problem) -> dict[str, Any]:
    return {"severity": problem.severity.value, "subject": problem.subject, "message": problem.message}
