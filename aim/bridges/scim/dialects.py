"""What identity providers send, put as RFC 7644 has it. Plain JSON in, plain JSON out; knows no library.

    a body of POST or PUT ─► document()   ─► the same by the book
    operations of a PATCH ─► operations() ─► one for each attribute

Seen of Microsoft Entra ID, with and without `aadOptscim062020`: `Add`, `Replace`, `Remove` in capitals; truth
values as "True" and "False", in values and in the filters of paths; objects without a path whose keys are
paths (`name.givenName`, `emails[type eq "work"].value`, an extension's URN before the attribute); a manager
as a bare string, or as a list of one; `$ref: null`; a URN of its own in the `schemas` of groups. Seen of
Okta: `id` among the values of a PATCH.

What members mean is settled in `patching`. Unknown attributes are nobody's business here: `core` drops them
in bodies and refuses them in paths.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from aim.bridges.scim.errors import ScimError, invalid_syntax, invalid_value, no_target
from aim.bridges.scim.resources import ENTERPRISE, SCHEMA
from aim.ports.scim import ScimKind

PATCH_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"

_ADSCIM = "http://schemas.microsoft.com/2006/11/resourcemanagement/adscim/"
"""How the URN begins, in lower case, that Entra puts into groups. It has no attributes that matter."""

_TRUTH = {"true": True, "false": False}
_TRUTHS = frozenset({"active", "primary"})
"""Attributes that are true or false, at any level."""
_QUOTED_TRUTH = re.compile(r'\b(primary|active)(\s+(?:eq|ne)\s+)"(true|false)"', re.IGNORECASE)
_SEVERAL = frozenset(
    {
        "members",
        "emails",
        "phonenumbers",
        "ims",
        "photos",
        "addresses",
        "entitlements",
        "roles",
        "x509certificates",
    }
)
"""Attributes with several values, in lower case: what a `remove` on one of them says as its value matters."""
_NOT_OURS_TO_SET = frozenset({"schemas", "id", "meta"})
_OPS = frozenset({"add", "replace", "remove"})

MAX_DEPTH = 32
"""How deep a body may be nested: SCIM needs five levels."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a PATCH (RFC 7644, 3.5.2), on one attribute."""

    op: str
    """add, replace or remove."""
    path: str
    value: object = None
    has_value: bool = True


# -- bodies --------------------------------------------------------------------------------------------------


def document(kind: ScimKind, given: object) -> dict[str, object]:
    """A body of POST or PUT. ScimError if it is no object, or doesn't name the schema that it follows."""
    body = _object(given)
    _require_schema(body, SCHEMA[kind])
    found: dict[str, object] = {}
    for key, value in body.items():
        lower = key.lower()
        if lower in _NOT_OURS_TO_SET or lower.startswith(_ADSCIM):
            continue
        if lower == ENTERPRISE.lower() and isinstance(value, Mapping):
            found[ENTERPRISE] = {name: _by_name(name, inner) for name, inner in value.items()}
        else:
            found[key] = _by_name(key, value)
    return found


def _object(given: object) -> Mapping[str, object]:
    if not isinstance(given, dict):
        raise invalid_syntax("the body must be a JSON object")
    return given


def _require_schema(body: Mapping[str, object], wanted: str) -> None:
    """The schemas must be named (RFC 7643, 3). Further ones are of attributes that are ignored."""
    listed = next((value for key, value in body.items() if key.lower() == "schemas"), None)
    if not isinstance(listed, list) or not all(isinstance(urn, str) for urn in listed):
        raise invalid_syntax(f"schemas must list {wanted}")
    if wanted.lower() not in (urn.lower() for urn in listed):
        raise invalid_value(f"schemas must list {wanted}")


def _by_name(name: str, value: object) -> object:
    """The value of an attribute of that name."""
    lower = name.lower()
    if lower == "manager":
        return _manager(value)
    return _truths(lower, value)


def _truths(name: str, value: object, depth: int = 0) -> object:
    """The value, with truth values that were spelled out, and without what is null inside."""
    if depth > MAX_DEPTH:
        raise invalid_syntax(f"the body is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        return _TRUTH.get(value.strip().lower(), value) if name in _TRUTHS else value
    if isinstance(value, list):
        return [_truths(name, item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {
            key: _truths(key.lower(), inner, depth + 1) for key, inner in value.items() if inner is not None
        }
    return value


def _manager(value: object) -> object:
    if isinstance(value, list):
        value = next(iter(value), None)
    if isinstance(value, str):
        value = {"value": value}
    if isinstance(value, dict):
        id_ = next((inner for key, inner in value.items() if key.lower() == "value"), None)
        return {"value": id_} if id_ else None
    return value


# -- PATCH ---------------------------------------------------------------------------------------------------


def operations(kind: ScimKind, given: object) -> list[Operation]:
    """The operations of a PATCH body in order, each on one path. ScimError if it is none."""
    body = _object(given)
    _require_schema(body, PATCH_SCHEMA)
    listed = next((value for key, value in body.items() if key.lower() == "operations"), None)
    if not isinstance(listed, list) or not listed:
        raise invalid_syntax("Operations must be a list of one or more operations")
    return [operation for entry in listed for operation in _expanded(kind, entry)]


def _expanded(kind: ScimKind, entry: object) -> Iterator[Operation]:
    if not isinstance(entry, dict):
        raise invalid_syntax("each operation must be a JSON object")
    said = {key.lower(): value for key, value in entry.items()}
    op, path, value = said.get("op"), said.get("path"), said.get("value")
    if not isinstance(op, str) or op.lower() not in _OPS:
        raise invalid_value("op must be add, replace or remove")
    if not isinstance(path, str | None):
        raise ScimError(400, "path must be a text", "invalidPath")
    if path is not None and path.strip():
        yield _operation(kind, op.lower(), path.strip(), value, "value" in said)
    elif op.lower() == "remove":
        raise no_target("remove needs a path")
    elif not isinstance(value, dict):
        raise invalid_value("without a path, value must be an object")
    else:
        for name, inner in _paths(value):
            yield _operation(kind, op.lower(), name, inner, given=True)


def _paths(value: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The keys of an object without a path, each as a path of its own."""
    for key, inner in value.items():
        lower = key.lower()
        if lower in _NOT_OURS_TO_SET or lower.startswith(_ADSCIM):
            continue
        if lower == ENTERPRISE.lower() and isinstance(inner, dict):
            yield from ((f"{ENTERPRISE}:{name}", value) for name, value in inner.items())
        else:
            yield key, inner


def _operation(kind: ScimKind, op: str, path: str, value: object, given: bool) -> Operation:
    path = _QUOTED_TRUTH.sub(lambda found: f"{found[1]}{found[2]}{found[3].lower()}", path)
    for urn in (SCHEMA[kind], ENTERPRISE):
        if path.lower().startswith(f"{urn.lower()}:"):
            path = path[len(urn) + 1 :] if urn == SCHEMA[kind] else f"{urn}{path[len(urn) :]}"
    name = re.split(r"[.:]", path.partition("]")[2] or path)[-1]
    is_manager = path.lower() == f"{ENTERPRISE}:manager".lower()
    is_plain = path.lower() not in _SEVERAL and not isinstance(value, dict | list)
    if op == "remove" and (is_manager or is_plain):
        # There is one value, and the path says which: what it was before may be told, for nothing.
        return Operation(op, path, has_value=False)
    if is_manager:
        value = _manager(value)
        if value is None:
            return Operation("remove", path, has_value=False)
    elif path.lower() == ENTERPRISE.lower() and isinstance(value, dict):
        value = {key: _by_name(key, inner) for key, inner in value.items()}
    else:
        value = _truths(name.lower(), value)
    return Operation(op, path, value, given)
