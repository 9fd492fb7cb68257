"""The plan as JSON: written by `aim plan --json/--out`, read by `apply --plan` and `approve`. Pure.

The digest is the SHA-256 of the document in canonical form (keys sorted, no white space, UTF-8) without
`digest`, `created_at` and everything about what is held.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from aim.errors import PlanError
from aim.planner.actions import AccountAction, AnyAction, identity_of
from aim.planner.plan import Plan

FORMAT_VERSION = 1
_UNDIGESTED = frozenset({"digest", "created_at", "held"})


def to_document(plan: Plan, created_at: datetime | None = None) -> dict[str, object]:
    """The plan as JSON values, in the order in which they are printed. `created_at` in UTC, or null."""
    document: dict[str, object] = {
        "format_version": FORMAT_VERSION,
        "digest": "",
        "created_at": created_at.strftime("%Y-%m-%dT%H:%M:%SZ") if created_at else None,
        "source": {"type": plan.source.type, "users": plan.source.users, "groups": plan.source.groups},
        "summary": {
            "total": len(plan.actions),
            "by_type": plan.by_type,
            "held": len(plan.held),
            "pending": plan.pending,
        },
        "actions": [_action(action) for action in plan.actions],
        "problems": [
            {"severity": problem.severity, "subject": problem.subject, "message": problem.message}
            for problem in plan.problems
        ],
        "held": [trip.message for trip in plan.trips],
    }
    document["digest"] = digest_of(document)
    return document


def to_text(document: Mapping[str, object]) -> str:
    """The document as it is printed and saved."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def digest(plan: Plan) -> str:
    """The digest of a plan: the same for equal worlds, whenever it is made."""
    return str(to_document(plan)["digest"])


def digest_of(document: Mapping[str, object]) -> str:
    """The digest that a document should carry."""
    canonical = json.dumps(
        _digested(document), sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str
    )
    # A file that was tampered with may hold half a surrogate pair, which UTF-8 proper has no bytes for.
    return "sha256:" + hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()


def _digested(document: Mapping[str, object]) -> dict[str, object]:
    """The document without what the digest does not cover, at the top and in its parts of known shape."""
    kept = {key: value for key, value in document.items() if key not in _UNDIGESTED}
    summary = document.get("summary")
    if isinstance(summary, Mapping):
        kept["summary"] = {key: value for key, value in summary.items() if key != "held"}
    actions = document.get("actions")
    if isinstance(actions, list):
        kept["actions"] = [
            {key: value for key, value in action.items() if key != "held"}
            if isinstance(action, Mapping)
            else action
            for action in actions
        ]
    return kept


def _action(action: AnyAction) -> dict[str, object]:
    return {
        "type": str(action.type),
        "target": action.target,
        "room": None if isinstance(action, AccountAction) else action.room,
        "room_id": action.room_id,
        "reason": action.reason,
        "held": action.held,
        "after": list(action.after),
        "details": dict(action.details),
    }


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """A plan read back: enough to compare and to approve, not to execute."""

    digest: str
    held: tuple[str, ...]
    """Identities of the actions that were held."""


def read_saved(text: str) -> SavedPlan:
    """Reads a saved plan and checks its digest. Raises PlanError if it is malformed or was edited."""
    remedy = "make a new one with `aim plan --out FILE`"
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"not a saved plan: {error}", remedy) from error
    if (
        not isinstance(document, dict)
        or "digest" not in document
        or not isinstance(document.get("actions"), list)
    ):
        raise PlanError("not a saved plan: it has no digest or no actions", remedy)
    if document.get("format_version") != FORMAT_VERSION:
        raise PlanError(
            f"the saved plan has format {document.get('format_version')!r}, this aim knows {FORMAT_VERSION}",
            remedy,
        )
    if document["digest"] != digest_of(document):
        raise PlanError("the saved plan was changed after it was made: its digest does not fit", remedy)
    return SavedPlan(str(document["digest"]), tuple(_held_identities(document["actions"])))


def _held_identities(actions: list[object]) -> Iterator[str]:
    for action in actions:
        if isinstance(action, Mapping) and action.get("held"):
            target, details = action.get("target"), action.get("details")
            level = details.get("level") if isinstance(details, Mapping) else None
            yield identity_of(
                str(action.get("type")),
                # None: an action on an account.
                str(action.get("room") or ""),
                None if target is None else str(target),
                level if isinstance(level, int) else None,
            )
